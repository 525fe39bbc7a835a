// The mixture of experts on tensor cores. One row alone runs its experts side by side. Several rows are
// sorted by expert first, so that those that share one read it together; a shared expert is one that
// every row has chosen. Whatever the way, each product is the chain of `tensor/few.cu`, and the outputs
// are added in the same order: the shared expert's, then those of the chosen.

struct Item {
    u32 expert; // the number of routed experts stands for the shared one
    u32 first;  // of its pairs, in `order`
    u32 count;
    u32 unused;
};

struct HalfExpertsArgs {
    ExpertsArgs e;
    const u16 *x;  // [rows][hidden]
    u16 *middle;   // [pairs][inner]; row r's choice k is pair r * (used + 1) + k, the shared expert last
    float *parts;  // [pairs][hidden]
    u32 *order;    // pairs, by expert
    Item *items;   // the first says in `count` how many follow
    u32 rows, experts, per_item, unused;
};

// What an expert's two input matrices are, or its output matrix.
__device__ __forceinline__ void inputs_of(const ExpertsArgs &e, bool shared, u32 expert, Matrix &gate, Matrix &up) {
    gate = shared ? e.shared_gate : member(e.gate, expert);
    up = shared ? e.shared_up : member(e.up, expert);
}

__device__ __forceinline__ u16 middle_of(const ExpertsArgs &e, float gate, float up, bool shared, float weight) {
    float m = swiglu(gate, up, shared ? e.shared_limit : e.limit) * weight;
    return (u16)pair_of(m, m);
}

// ------------------------------------------------------------------ few rows

// Segments of 16 rows of two matrices times up to 8 vectors.
template <int F>
__device__ __forceinline__ void two_segments(const Matrix &gate, const Matrix &up, u32 row, u32 first, u32 step, const u16 *input, const Iq2Tables &tables, float *partial, u32 segments) {
    u32 blocks = gate.cols / 256;
    for (u32 segment = first; segment < segments; segment += step) {
        float g[1][4] = {}, u[1][4] = {};
        for (u32 block = 2 * segment; block < min(2 * segment + 2, blocks); block++) {
            const u16 *const x[1] = {input ? input + 256 * block : nullptr};
            Tile<F> a, b;
            a.load(gate, row, block);
            // Wide ones do not fit into the registers together.
            if (sizeof(Tile<F>) < 96) b.load(up, row, block);
            few_block<F, 1>(gate, a, x, tables, g);
            if (sizeof(Tile<F>) >= 96) b.load(up, row, block);
            few_block<F, 1>(up, b, x, tables, u);
        }
        put_segment<1>(partial + segment * 128, g);
        put_segment<1>(partial + (segments + segment) * 128, u);
    }
}

// A block computes 16 values (or, of short rows, several times 16) of the inner vectors of an item.
__device__ __forceinline__ void few_inner(const HalfExpertsArgs &a, bool shared, u32 expert, u32 count, const u16 *input, const u32 *pairs, float *partial, const Iq2Tables &tables) {
    const ExpertsArgs &e = a.e;
    u32 segments = segments_of(e.hidden), share = sharers(e.hidden), tiles = FEW_WARPS / share;
    u32 warp = threadIdx.x / 32, tile = warp / share, row = (blockIdx.x * tiles + tile) * 16;
    Matrix gate, up;
    inputs_of(e, shared, expert, gate, up);
    if (tile < tiles && row < e.inner) {
#define BODY(F) two_segments<F>(gate, up, row, warp % share, share, input, tables, partial + tile * segments * 256, segments)
        FOR_CODES(gate.format, BODY)
#undef BODY
    }
    __syncthreads();
    float scale = unscale(gate.format);
    for (u32 o = threadIdx.x; o < tiles * 16 * count; o += blockDim.x) {
        u32 of = o % 16, which = o / 16 % tiles, n = o / 16 / tiles, i = (blockIdx.x * tiles + which) * 16 + of;
        if (i >= e.inner) continue;
        const float *sums = partial + which * segments * 256 + of * 8 + n;
        float g = 0.0f, u = 0.0f;
        for (u32 s = 0; s < segments; s++) g += sums[s * 128], u += sums[(segments + s) * 128];
        u32 pair = pairs[n], r = pair / (e.used + 1), k = pair % (e.used + 1);
        float weight = shared ? 1.0f : e.weights[(u64)r * e.used + k];
        a.middle[(u64)pair * e.inner + i] = middle_of(e, g * scale, u * scale, shared, weight);
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_in_1(const HalfExpertsArgs a) {
    extern __shared__ float sums[];
    __shared__ Iq2Tables tables;
    __shared__ u32 pair[1];
    const ExpertsArgs &e = a.e;
    u32 k = blockIdx.y, r = blockIdx.z;
    bool shared = k == e.used;
    invite();
    if (!shared && e.gate.first.format == IQ2_XXS) fill(tables);
    if (threadIdx.x == 0) pair[0] = r * (e.used + 1) + k;
    if (shared) {
        // Its weights are known beforehand: all of them are asked for.
        u32 share = sharers(e.hidden), tiles = FEW_WARPS / share, warp = threadIdx.x / 32, row = (blockIdx.x * tiles + warp / share) * 16;
        if (warp / share < tiles && row < e.inner && e.shared_gate.format == Q8_0)
            for (u32 segment = warp % share; segment < segments_of(e.hidden); segment += share)
                for (u32 block = 2 * segment; block < min(2 * segment + 2, e.hidden / 256); block++) {
                    expect_block<Q8_0>(e.shared_gate, row, block);
                    expect_block<Q8_0>(e.shared_up, row, block);
                }
    }
    await();
    __syncthreads();
    u32 expert = shared ? 0 : e.picked[(u64)r * e.used + k];
    const u16 *input = threadIdx.x % 32 < 4 ? a.x + (u64)r * e.hidden : nullptr;
    few_inner(a, shared, expert, 1, input, pair, sums, tables);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_experts_in_8(const HalfExpertsArgs a) {
    extern __shared__ float sums[];
    __shared__ Iq2Tables tables;
    __shared__ u32 pairs[8];
    const ExpertsArgs &e = a.e;
    invite();
    if (e.gate.first.format == IQ2_XXS) fill(tables);
    await();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    if (threadIdx.x < 8) pairs[threadIdx.x] = a.order[item.first + min(threadIdx.x, item.count - 1)];
    __syncthreads();
    u32 n = threadIdx.x % 32 / 4;
    const u16 *input = n < item.count ? a.x + (u64)(pairs[n] / (e.used + 1)) * e.hidden : nullptr;
    few_inner(a, item.expert == a.experts, item.expert, item.count, input, pairs, sums, tables);
}

// All segments of 16 rows of a matrix times up to 8 vectors, by one warp.
template <int F> __device__ __forceinline__ void whole_rows(const Matrix &m, u32 row, const u16 *input, const Iq2Tables &tables, float (&total)[4]) {
    u32 blocks = m.cols / 256;
    for (u32 first = 0; first < blocks; first += 2) {
        float sum[1][4] = {};
        for (u32 block = first; block < min(first + 2, blocks); block++) {
            Tile<F> tile;
            tile.load(m, row, block);
            const u16 *const x[1] = {input ? input + 256 * block : nullptr};
            few_block<F, 1>(m, tile, x, tables, sum);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) total[j] += sum[0][j];
    }
}

__device__ __forceinline__ void any_whole_rows(const Matrix &m, u32 row, const u16 *input, const Iq2Tables &tables, float (&total)[4]) {
#define BODY(F) whole_rows<F>(m, row, input, tables, total)
    FOR_CODES(m.format, BODY)
#undef BODY
}

// A block computes 16 values of a row's output: a warp for each of its experts.
extern "C" __global__ void __launch_bounds__(256, 2) half_experts_out_1(const HalfExpertsArgs a) {
    extern __shared__ float outputs[]; // [used + 1][16]
    __shared__ Iq2Tables tables;
    const ExpertsArgs &e = a.e;
    u32 r = blockIdx.y, warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, row = blockIdx.x * 16;
    invite();
    if (e.down.first.format == IQ2_XXS) fill(tables);
    if (warp == e.used % FEW_WARPS && e.shared_down.format == Q8_0)
        for (u32 block = 0; block < e.inner / 256; block++) expect_block<Q8_0>(e.shared_down, row, block);
    await();
    __syncthreads();
    for (u32 k = warp; k <= e.used; k += FEW_WARPS) {
        bool shared = k == e.used;
        Matrix down = shared ? e.shared_down : member(e.down, e.picked[(u64)r * e.used + k]);
        const u16 *input = g == 0 ? a.middle + ((u64)r * (e.used + 1) + k) * e.inner : nullptr;
        float total[4] = {}, scale = unscale(down.format);
        any_whole_rows(down, row, input, tables, total);
        if (threadIdx.x % 4 == 0) {
            outputs[k * 16 + g] = total[0] * scale;
            outputs[k * 16 + g + 8] = total[2] * scale;
        }
    }
    __syncthreads();
    u32 d = row + threadIdx.x;
    if (threadIdx.x >= 16 || d >= e.hidden) return;
    float y = outputs[e.used * 16 + threadIdx.x];
    for (u32 k = 0; k < e.used; k++) y += outputs[k * 16 + threadIdx.x];
    e.out[(u64)r * e.hidden + d] = y;
}

// Eight warps take eight times 16 rows of an item's output matrix.
extern "C" __global__ void __launch_bounds__(256, 2) half_experts_out_8(const HalfExpertsArgs a) {
    __shared__ Iq2Tables tables;
    __shared__ u32 pairs[8];
    const ExpertsArgs &e = a.e;
    invite();
    if (e.down.first.format == IQ2_XXS) fill(tables);
    await();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    if (threadIdx.x < 8) pairs[threadIdx.x] = a.order[item.first + min(threadIdx.x, item.count - 1)];
    __syncthreads();
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = (blockIdx.x * FEW_WARPS + threadIdx.x / 32) * 16;
    if (row >= e.hidden) return;
    Matrix down = item.expert == a.experts ? e.shared_down : member(e.down, item.expert);
    const u16 *input = g < item.count ? a.middle + (u64)pairs[g] * e.inner : nullptr;
    float total[4] = {}, scale = unscale(down.format);
    any_whole_rows(down, row, input, tables, total);
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        u32 n = 2 * t + j % 2, d = row + g + j / 2 * 8;
        if (n < item.count && d < e.hidden) a.parts[(u64)pairs[n] * e.hidden + d] = total[j] * scale;
    }
}

// ------------------------------------------------------------------ many rows

template <int N> __device__ __forceinline__ void many_inner(const HalfExpertsArgs &a) {
    extern __shared__ uint4 stage[];
    __shared__ Vectors<N> vectors;
    __shared__ Iq2Tables tables;
    __shared__ u32 pairs[8 * N];
    const ExpertsArgs &e = a.e;
    enter();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    bool shared = item.expert == a.experts;
    if (threadIdx.x < 8 * N) {
        u32 pair = a.order[item.first + min(threadIdx.x, item.count - 1)];
        pairs[threadIdx.x] = pair;
        vectors.at[threadIdx.x] = a.x + (u64)(pair / (e.used + 1)) * e.hidden;
    }
    if (!shared && e.gate.first.format == IQ2_XXS) fill(tables);
    __syncthreads();
    Matrix gate, up;
    inputs_of(e, shared, item.expert, gate, up);
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = blockIdx.x * 64 + threadIdx.x / 32 * 16;
    float total[2][N][4] = {}, scale = unscale(gate.format);
#define BODY(F) many_columns<F, N>(gate, row, up, row, vectors, stage, tables, total)
    FOR_CODES(gate.format, BODY)
#undef BODY
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 i = row + g + j / 2 * 8, vector = 8 * n + 2 * t + j % 2;
            if (i >= e.inner || vector >= item.count) continue;
            u32 pair = pairs[vector], r = pair / (e.used + 1), k = pair % (e.used + 1);
            float weight = shared ? 1.0f : e.weights[(u64)r * e.used + k];
            a.middle[(u64)pair * e.inner + i] = middle_of(e, total[0][n][j] * scale, total[1][n][j] * scale, shared, weight);
        }
}

template <int N> __device__ __forceinline__ void many_outer(const HalfExpertsArgs &a) {
    extern __shared__ uint4 stage[];
    __shared__ Vectors<N> vectors;
    __shared__ Iq2Tables tables;
    __shared__ u32 pairs[8 * N];
    const ExpertsArgs &e = a.e;
    enter();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    bool shared = item.expert == a.experts;
    if (threadIdx.x < 8 * N) {
        u32 pair = a.order[item.first + min(threadIdx.x, item.count - 1)];
        pairs[threadIdx.x] = pair;
        vectors.at[threadIdx.x] = a.middle + (u64)pair * e.inner;
    }
    if (!shared && e.down.first.format == IQ2_XXS) fill(tables);
    __syncthreads();
    Matrix down = shared ? e.shared_down : member(e.down, item.expert);
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = blockIdx.x * 128 + threadIdx.x / 32 * 32;
    float total[2][N][4] = {}, scale = unscale(down.format);
#define BODY(F) many_columns<F, N>(down, row, down, row + 16, vectors, stage, tables, total)
    FOR_CODES(down.format, BODY)
#undef BODY
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u32 d = row + 16 * i + g + j / 2 * 8, vector = 8 * n + 2 * t + j % 2;
                if (d < e.hidden && vector < item.count) a.parts[(u64)pairs[vector] * e.hidden + d] = total[i][n][j] * scale;
            }
}

extern "C" __global__ void __launch_bounds__(128, 3) half_experts_in_16(const HalfExpertsArgs a) { many_inner<2>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) half_experts_in_32(const HalfExpertsArgs a) { many_inner<4>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) half_experts_in_64(const HalfExpertsArgs a) { many_inner<8>(a); }
extern "C" __global__ void __launch_bounds__(128, 3) half_experts_out_16(const HalfExpertsArgs a) { many_outer<2>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) half_experts_out_32(const HalfExpertsArgs a) { many_outer<4>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) half_experts_out_64(const HalfExpertsArgs a) { many_outer<8>(a); }

// ------------------------------------------------------------------ which rows share an expert

// One block sorts the pairs by expert and cuts each expert's into items. In what order the pairs of one
// expert lie does not matter: a vector's sums do not depend on its place.
extern "C" __global__ void __launch_bounds__(1024) group_pairs(const HalfExpertsArgs a) {
    extern __shared__ u32 counts[]; // [experts + 1], and behind it where the pairs of each begin
    u32 *begin = counts + a.experts + 1;
    const ExpertsArgs &e = a.e;
    enter();
    for (u32 i = threadIdx.x; i < a.experts; i += blockDim.x) counts[i] = 0;
    if (threadIdx.x == 0) counts[a.experts] = a.rows;
    __syncthreads();
    for (u32 p = threadIdx.x; p < a.rows * e.used; p += blockDim.x) atomicAdd(&counts[e.picked[p]], 1);
    __syncthreads();
    if (threadIdx.x < 32) {
        u32 lane = threadIdx.x, pairs = 0, items = 0;
        for (u32 first = 0; first <= a.experts; first += 32) {
            u32 i = first + lane, count = i <= a.experts ? counts[i] : 0, cut = (count + a.per_item - 1) / a.per_item;
            u32 pairs_here = count, items_here = cut;
            for (int o = 1; o < 32; o *= 2) {
                u32 p = __shfl_up_sync(FULL, pairs_here, o), q = __shfl_up_sync(FULL, items_here, o);
                if (lane >= (u32)o) pairs_here += p, items_here += q;
            }
            u32 at = pairs + pairs_here - count, item = items + items_here - cut;
            if (i <= a.experts) begin[i] = at;
            for (u32 k = 0; k < cut; k++) a.items[1 + item + k] = Item{i, at + k * a.per_item, min(a.per_item, count - k * a.per_item), 0};
            pairs += __shfl_sync(FULL, pairs_here, 31), items += __shfl_sync(FULL, items_here, 31);
        }
        if (lane == 0) a.items[0] = Item{0, 0, items, 0};
    }
    __syncthreads();
    for (u32 p = threadIdx.x; p < a.rows * e.used; p += blockDim.x)
        a.order[atomicAdd(&begin[e.picked[p]], 1)] = p / e.used * (e.used + 1) + p % e.used;
    for (u32 r = threadIdx.x; r < a.rows; r += blockDim.x) a.order[begin[a.experts] + r] = r * (e.used + 1) + e.used;
}

// Adds up a row's outputs.
extern "C" __global__ void __launch_bounds__(256) join_experts(const HalfExpertsArgs a) {
    const ExpertsArgs &e = a.e;
    enter();
    u32 r = blockIdx.y, d = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (d >= e.hidden) return;
    const float *parts = a.parts + (u64)r * (e.used + 1) * e.hidden + d;
    float4 y = *(const float4 *)(parts + (u64)e.used * e.hidden);
    for (u32 k = 0; k < e.used; k++) {
        float4 p = *(const float4 *)(parts + (u64)k * e.hidden);
        y = make_float4(y.x + p.x, y.y + p.y, y.z + p.z, y.w + p.w);
    }
    *(float4 *)(e.out + (u64)r * e.hidden + d) = y;
}
