// The experts of many rows on tensor cores, and what brings several rows together: pairs of row and choice are
// sorted by expert, cut into items, and each row's outputs are added in the end.

// What an expert's two input matrices are.
__device__ __forceinline__ void inputs_of(const ExpertsArgs &e, bool shared, u32 expert, Matrix &gate, Matrix &up) {
    gate = shared ? e.shared_gate : member(e.gate, expert);
    up = shared ? e.shared_up : member(e.up, expert);
}

template <int N> __device__ __forceinline__ void many_inner(const HalfExpertsArgs &a) {
    extern __shared__ uint4 room[];
    __shared__ Vectors<N> vectors;
    __shared__ u32 pairs[8 * N];
    const ExpertsArgs &e = a.e;
    Iq2Table *table = (Iq2Table *)room;
    uint4 *stage = (uint4 *)behind_table(room, e.gate.first.format);
    enter();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    bool shared = item.expert == a.experts;
    if (threadIdx.x < 8 * N) {
        u32 pair = a.order[item.first + min(threadIdx.x, item.count - 1)];
        pairs[threadIdx.x] = pair;
        vectors.at[threadIdx.x] = a.x + (u64)(pair / (e.used + 1)) * e.hidden;
    }
    if (!shared && has_table(e.gate.first.format)) fill(*table);
    __syncthreads();
    Matrix gate, up;
    inputs_of(e, shared, item.expert, gate, up);
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = blockIdx.x * 64 + threadIdx.x / 32 * 16;
    float total[2][N][4] = {}, scale = unscale(gate.format);
#define BODY(F) many_columns<F, N>(gate, row, up, row, vectors, stage, table, total)
    FOR_EXPERT_CODES(gate.format, BODY)
#undef BODY
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 i = row + g + j / 2 * 8, vector = 8 * n + 2 * t + j % 2;
            if (i >= e.inner || vector >= item.count) continue;
            u32 pair = pairs[vector], r = pair / (e.used + 1), k = pair % (e.used + 1);
            float weight = shared ? 1.0f : e.weights[(u64)r * e.used + k];
            float m = swiglu(total[0][n][j] * scale, total[1][n][j] * scale, shared ? e.shared_limit : e.limit) * weight;
            a.middle[(u64)pair * e.inner + i] = half_of(m);
        }
}

template <int N> __device__ __forceinline__ void many_outer(const HalfExpertsArgs &a) {
    extern __shared__ uint4 room[];
    __shared__ Vectors<N> vectors;
    __shared__ u32 pairs[8 * N];
    const ExpertsArgs &e = a.e;
    Iq2Table *table = (Iq2Table *)room;
    uint4 *stage = (uint4 *)behind_table(room, e.down.first.format);
    enter();
    if (blockIdx.y >= a.items[0].count) return;
    const Item item = a.items[1 + blockIdx.y];
    bool shared = item.expert == a.experts;
    if (threadIdx.x < 8 * N) {
        u32 pair = a.order[item.first + min(threadIdx.x, item.count - 1)];
        pairs[threadIdx.x] = pair;
        vectors.at[threadIdx.x] = a.middle + (u64)pair * e.inner;
    }
    if (!shared && has_table(e.down.first.format)) fill(*table);
    __syncthreads();
    Matrix down = shared ? e.shared_down : member(e.down, item.expert);
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = blockIdx.x * 128 + threadIdx.x / 32 * 32;
    float total[2][N][4] = {}, scale = unscale(down.format);
#define BODY(F) many_columns<F, N>(down, row, down, row + 16, vectors, stage, table, total)
    FOR_EXPERT_CODES(down.format, BODY)
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
    if (threadIdx.x == 0) counts[a.experts] = a.shared_items ? a.rows : 0;
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
    for (u32 r = threadIdx.x; r < a.rows && a.shared_items; r += blockDim.x) a.order[begin[a.experts] + r] = r * (e.used + 1) + e.used;
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
