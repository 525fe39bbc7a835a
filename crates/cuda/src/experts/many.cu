// The experts of many rows on tensor cores, and what brings several rows together: pairs of row and choice are
// sorted by expert, cut into items, and each row's outputs are added in the end.

// What an expert's two input matrices are.
__device__ __forceinline__ void inputs_of(const ExpertsArgs &e, bool shared, u32 expert, Matrix &gate, Matrix &up) {
    gate = shared ? e.shared_gate : member(e.gate, expert);
    up = shared ? e.shared_up : member(e.up, expert);
}

// The units of so many vectors, [blocks][vectors] in shared memory; they need no sums.
struct StagedUnits {
    const float *at;
    u32 vectors;
    __device__ __forceinline__ float2 units(u32 block, u32 vector) const { return *(const float2 *)(at + block * vectors + vector); }
    __device__ __forceinline__ uint2 sums(u32, u32) const { return make_uint2(0, 0); }
};

// Those of pairs, in memory.
struct PairUnits {
    const u32 *pairs;
    InnerNumbers of;
    u32 blocks;
    __device__ __forceinline__ float unit(u32 block, u32 vector) const { return __ldcg(of.units + (u64)pairs[vector] * blocks + block); }
    __device__ __forceinline__ float2 units(u32 block, u32 vector) const { return make_float2(unit(block, vector), unit(block, vector + 1)); }
    __device__ __forceinline__ uint2 sums(u32 block, u32 vector) const { return __ldcg((const uint2 *)(of.sums + ((u64)pairs[vector] * blocks + block) * 16) + threadIdx.x % 4); }
};

// The inner vectors of an item's pairs: 64 rows of its gate, and of the other input.
template <int N> __device__ __forceinline__ void many_inner(const HalfExpertsArgs &a, const Item &item) {
    extern __shared__ uint4 many_memory[];
    __shared__ u32 pairs[8 * N];
    __shared__ float weights[8 * N];
    const ExpertsArgs &e = a.e;
    bool shared = item.expert == a.experts;
    if (threadIdx.x < 8 * N) {
        u32 pair = a.order[item.first + min(threadIdx.x, item.count - 1)], r = pair / (e.used + 1), k = pair % (e.used + 1);
        pairs[threadIdx.x] = pair, weights[threadIdx.x] = shared ? 1.0f : e.weights[(u64)r * e.used + k];
    }
    Matrix gate, up;
    inputs_of(e, shared, item.expert, gate, up);
    __syncthreads();
    u32 top = blockIdx.x * HALF_ROWS;
    float total[2][N][4] = {};
    auto row = [&](u32 i) { return (u64)(pairs[i] / (e.used + 1)); };
    if (gate.format == IQ2_XXS) {
        Iq2Table *table = (Iq2Table *)many_memory;
        u32 blocks = e.hidden / 256;
        float *units = (float *)(table + 1);
        fill(*table);
        for (u32 i = threadIdx.x; i < blocks * 8 * N; i += blockDim.x) units[i] = a.numbers.units[row(i % (8 * N)) * blocks + i / (8 * N)];
        auto input = [&](u32 i) { return a.numbers.halves + row(i) * e.hidden; };
        many_columns<IQ2_XXS, N>(gate, top, up, top, input, StagedUnits{units, 8 * N}, (u8 *)(units + blocks * 8 * N), table, total);
    } else {
        auto input = [&](u32 i) { return a.x + row(i) * e.hidden; };
#define BODY(F) many_columns<F, N>(gate, top, up, top, input, NoUnits(), (u8 *)many_memory, nullptr, total)
        FOR_CODES(gate.format, BODY)
#undef BODY
    }
    float scale = unscale(gate.format), limit = shared ? e.shared_limit : e.limit;
    u32 first = top + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 vector = 8 * n + threadIdx.x % 4 * 2 + j;
            if (vector >= item.count) continue;
            u16 *middle = a.middle + (u64)pairs[vector] * e.inner + first;
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                if (first + 8 * k >= e.inner) continue;
                float m = swiglu(total[0][n][2 * k + j] * scale, total[1][n][2 * k + j] * scale, limit) * weights[vector];
                middle[8 * k] = half_of(m);
            }
        }
}

// The outputs of an item's pairs: 128 values of each.
template <int N> __device__ __forceinline__ void many_outer(const HalfExpertsArgs &a, const Item &item) {
    extern __shared__ uint4 many_memory[];
    __shared__ u32 pairs[8 * N];
    const ExpertsArgs &e = a.e;
    if (threadIdx.x < 8 * N) pairs[threadIdx.x] = a.order[item.first + min(threadIdx.x, item.count - 1)];
    Matrix down = item.expert == a.experts ? e.shared_down : member(e.down, item.expert);
    __syncthreads();
    auto input = [&](u32 i) { return a.middle + (u64)pairs[i] * e.inner; };
    u32 top = blockIdx.x * 2 * HALF_ROWS;
    float total[2][N][4] = {};
    float scale = unscale(down.format);
    if (down.format == Q2_K && item.expert < a.experts) {
        many_columns<WHOLE_Q2_K, N>(down, top, down, top + HALF_ROWS, input, PairUnits{pairs, a.inner, e.inner / 256}, (u8 *)many_memory, nullptr, total);
        scale = unscale(WHOLE_Q2_K);
    } else {
#define BODY(F) many_columns<F, N>(down, top, down, top + HALF_ROWS, input, NoUnits(), (u8 *)many_memory, nullptr, total)
        FOR_CODES(down.format, BODY)
#undef BODY
    }
    u32 row = top + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 vector = 8 * n + threadIdx.x % 4 * 2 + j;
            if (vector >= item.count) continue;
            float *parts = a.parts + (u64)pairs[vector] * e.hidden + row;
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                u32 further = k / 2 * HALF_ROWS + k % 2 * 8;
                if (row + further < e.hidden) parts[further] = total[k / 2][n][k % 2 * 2 + j] * scale;
            }
        }
}

// What is left of an expert's vectors behind whole items gets a block for as many.
template <int N> __device__ __forceinline__ void many_experts_in(const HalfExpertsArgs &a) {
    enter();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    if (N == 8 && item.count <= 32) return many_inner<(N == 8 ? 4 : N)>(a, item);
    if (N == 8 && item.count <= 48) return many_inner<(N == 8 ? 6 : N)>(a, item);
    many_inner<N>(a, item);
}

template <int N> __device__ __forceinline__ void many_experts_out(const HalfExpertsArgs &a) {
    enter();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    if (N == 8 && item.count <= 32) return many_outer<(N == 8 ? 4 : N)>(a, item);
    if (N == 8 && item.count <= 48) return many_outer<(N == 8 ? 6 : N)>(a, item);
    many_outer<N>(a, item);
}

extern "C" __global__ void __launch_bounds__(128, 3) half_experts_in_16(const HalfExpertsArgs a) { many_experts_in<2>(a); }
extern "C" __global__ void __launch_bounds__(128, 3) half_experts_in_32(const HalfExpertsArgs a) { many_experts_in<4>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) half_experts_in_64(const HalfExpertsArgs a) { many_experts_in<8>(a); }
extern "C" __global__ void __launch_bounds__(128, 3) half_experts_out_16(const HalfExpertsArgs a) { many_experts_out<2>(a); }
extern "C" __global__ void __launch_bounds__(128, 3) half_experts_out_32(const HalfExpertsArgs a) { many_experts_out<4>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) half_experts_out_64(const HalfExpertsArgs a) { many_experts_out<8>(a); }

// ------------------------------------------------------------------ which rows share an expert

// One block sorts the pairs by expert and cuts each expert's into items. In what order the pairs of one
// expert lie does not matter: a vector's sums do not depend on its place.
extern "C" __global__ void __launch_bounds__(1024) group_pairs(const HalfExpertsArgs a) {
    extern __shared__ u32 counts[]; // [experts + 1], and behind it where the pairs of each begin
    u32 *begin = counts + a.experts + 1;
    const ExpertsArgs &e = a.e;
    enter();
    for (u32 i = threadIdx.x; i < a.experts; i += blockDim.x) counts[i] = 0;
    if (threadIdx.x == 0) counts[a.experts] = a.shared_items ? a.rows : 0;
    __syncthreads();
    const u32 choices = a.shared_items == 2 ? 0 : a.rows * e.used;
    for (u32 p = threadIdx.x; p < choices; p += blockDim.x) atomicAdd(&counts[e.picked[p]], 1);
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
    for (u32 p = threadIdx.x; p < choices; p += blockDim.x)
        a.order[atomicAdd(&begin[e.picked[p]], 1)] = p / e.used * (e.used + 1) + p % e.used;
    for (u32 r = threadIdx.x; r < a.rows && a.shared_items; r += blockDim.x) a.order[begin[a.experts] + r] = r * (e.used + 1) + e.used;
}

// Adds up a row's outputs. A block is so small that it has room beside one of `half_experts_out_8_q2`, and waits there.
static const u32 JOIN_THREADS = 128, JOIN_AT_ONCE = 4;

extern "C" __global__ void __launch_bounds__(JOIN_THREADS) join_experts(const __grid_constant__ HalfExpertsArgs a) {
    const ExpertsArgs &e = a.e;
    enter();
    u32 r = blockIdx.y, d = 4 * (blockIdx.x * JOIN_THREADS + threadIdx.x), pitch = e.hidden / 4;
    if (d >= e.hidden) return;
    const float4 *part = (const float4 *)(a.parts + (u64)r * (e.used + 1) * e.hidden + d);
    float4 y = part[e.used * pitch];
    for (u32 k = 0; k < e.used; k += JOIN_AT_ONCE) {
        float4 some[JOIN_AT_ONCE];
#pragma unroll
        for (u32 i = 0; i < JOIN_AT_ONCE; i++)
            if (k + i < e.used) some[i] = part[(k + i) * pitch];
#pragma unroll
        for (u32 i = 0; i < JOIN_AT_ONCE; i++)
            if (k + i < e.used) y = make_float4(y.x + some[i].x, y.y + some[i].y, y.z + some[i].z, y.w + some[i].w);
    }
    *(float4 *)(e.out + (u64)r * e.hidden + d) = y;
}
