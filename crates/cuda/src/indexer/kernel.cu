// The indexer: small query heads score index rows, and the best rows are attended to. In the official
// rounding queries and rows are small integers under powers of two, so their products are exact.

struct IndexQueryArgs {
    const Row *rows;
    const float2 *turns;
    float *queries; // [rows][heads][dim], rounded in place when nothing is packed
    int *codes;     // [rows][heads][dim / 4]: four signed codes, each twice its E2M1 value
    float *scales;  // [rows][heads][dim / 32]: a quarter of the scale, for the two doublings
    u32 heads, dim, rope, top_k;
    u32 plain, turn, first, unused;
};

__device__ __forceinline__ u32 csa_visible(u32 position) { return (position + 1) / 4; }

// Rotates a head and rounds it as the rows that it meets.
extern "C" __global__ void index_queries(const IndexQueryArgs a) {
    enter();
    extern __shared__ float v[];
    u32 r = a.first + blockIdx.y, h = blockIdx.x, lane = threadIdx.x % 32;
    if (csa_visible(a.rows[r].position) <= a.top_k) return;
    float *query = a.queries + ((u64)r * a.heads + h) * a.dim;
    for (u32 i = threadIdx.x; i < a.dim; i += blockDim.x) v[i] = query[i];
    __syncthreads();
    rotate(v, a.dim, a.rope, a.turns + ((u64)r * 4 + a.turn) * (a.rope / 2));
    if (a.plain) {
        for (u32 i = threadIdx.x; i < a.dim; i += blockDim.x) query[i] = v[i];
        return;
    }
    hadamard(v, a.dim);
    u64 head = (u64)r * a.heads + h;
    for (u32 g = threadIdx.x / 32; g < a.dim / 32; g += blockDim.x / 32) {
        float x = v[g * 32 + lane];
        float scale = e8m0_to_f32(fp4_scale(warp_largest(x)));
        float code = 2.0f * e2m1_to_f32(f32_to_e2m1(x * (1.0f / scale)));
        ((signed char *)a.codes)[head * a.dim + g * 32 + lane] = (signed char)code;
        if (lane == 0) a.scales[head * (a.dim / 32) + g] = 0.25f * scale;
    }
}

// What all scoring kernels want to know; the one on tensor cores rotates and rounds the queries itself.
struct IndexScoreArgs {
    const Row *rows;
    const float2 *turns;
    const float *queries; // [rows][heads][dim]
    const int *codes;     // from index_queries
    const float *scales;
    const float *weights; // [rows][heads]
    float *scores;        // [rows][capacity]
    RowFormat format;
    u64 row_at;
    u32 heads, capacity, top_k, first;
    u32 turn;
    float scale;
    u32 lines; // tensor cores: index rows that a block scores at once, 16 to a warp; what warps there are more help with the query
    u32 unused;
};

// Four E2M1 codes to four signed bytes, twice their values.
__device__ __forceinline__ int doubled(u32 nibbles) {
    u32 index = nibbles & 0x7777;
    u32 above = __byte_perm(0x03020100, 0x0c080604, index);
    u32 below = __byte_perm(0xfdfeff00, 0xf4f8fafc, index);
    u32 minus = __byte_perm(0x0000ff00, 0, nibbles >> 3 & 0x1111);
    return (int)((above & ~minus) | (below & minus));
}

// Threads that share an index row, each with a part of the heads.
static const u32 SHARERS = 4;

// Scores index rows of packed codes for one row of the round.
extern "C" __global__ void __launch_bounds__(128) index_scores(const IndexScoreArgs a) {
    extern __shared__ int shared[];
    enter();
    u32 r = a.first + blockIdx.y, rows = blockDim.x / SHARERS;
    const Row row = a.rows[r];
    u32 visible = csa_visible(row.position);
    if (visible <= a.top_k || blockIdx.x * rows >= visible) return;
    u32 dim = a.format.values, groups = dim / 32;
    int *codes = shared;
    float *scales = (float *)(codes + a.heads * dim / 4);
    float *weights = scales + a.heads * groups;
    for (u32 i = threadIdx.x; i < a.heads * dim / 16; i += blockDim.x) ((int4 *)codes)[i] = ((const int4 *)a.codes)[(u64)r * a.heads * dim / 16 + i];
    for (u32 i = threadIdx.x; i < a.heads * groups; i += blockDim.x) scales[i] = a.scales[(u64)r * a.heads * groups + i];
    for (u32 i = threadIdx.x; i < a.heads; i += blockDim.x) weights[i] = a.weights[(u64)r * a.heads + i] * a.scale;
    u32 index = blockIdx.x * rows + threadIdx.x / SHARERS;
    const u8 *packed = page_row(row.pages, 4, (u32)a.row_at, min(index, visible - 1), a.format.bytes);
    int mine[32];
    float group_scale[4];
#pragma unroll
    for (int g = 0; g < 4; g++) {
        group_scale[g] = (u32)g < groups ? e8m0_to_f32(packed[dim / 2 + g]) : 0.0f;
#pragma unroll
        for (int w = 0; w < 4; w++) {
            u32 nibbles = (u32)g < groups ? *(const u32 *)(packed + 16 * g + 4 * w) : 0;
            mine[8 * g + 2 * w] = doubled(nibbles & 0xffff);
            mine[8 * g + 2 * w + 1] = doubled(nibbles >> 16);
        }
    }
    __syncthreads();
    float score = 0.0f;
    for (u32 h = threadIdx.x % SHARERS; h < a.heads; h += SHARERS) {
        float product = 0.0f;
#pragma unroll
        for (int g = 0; g < 4; g++) {
            if ((u32)g < groups) {
                const int4 *q = (const int4 *)(codes + h * dim / 4 + 8 * g);
                int4 low = q[0], high = q[1];
                int sum = __dp4a(mine[8 * g], low.x, 0), more = __dp4a(mine[8 * g + 4], high.x, 0);
                sum = __dp4a(mine[8 * g + 1], low.y, sum), more = __dp4a(mine[8 * g + 5], high.y, more);
                sum = __dp4a(mine[8 * g + 2], low.z, sum), more = __dp4a(mine[8 * g + 6], high.z, more);
                sum = __dp4a(mine[8 * g + 3], low.w, sum), more = __dp4a(mine[8 * g + 7], high.w, more);
                product += (float)(sum + more) * (scales[h * groups + g] * group_scale[g]);
            }
        }
        // A comparison, not a maximum, so that NaN stays NaN.
        score += (product < 0.0f ? 0.0f : product) * weights[h];
    }
    score += __shfl_xor_sync(FULL, score, 1);
    score += __shfl_xor_sync(FULL, score, 2);
    if (threadIdx.x % SHARERS == 0 && index < visible) a.scores[(u64)blockIdx.y * a.capacity + index] = score;
}

// The same for rows of f32: a warp takes a row.
extern "C" __global__ void __launch_bounds__(128) index_scores_plain(const IndexScoreArgs a) {
    enter();
    u32 r = a.first + blockIdx.y, lane = threadIdx.x % 32;
    const Row row = a.rows[r];
    u32 visible = csa_visible(row.position);
    u32 index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (visible <= a.top_k || index >= visible) return;
    u32 dim = a.format.values;
    const float *values = (const float *)page_row(row.pages, 4, (u32)a.row_at, index, a.format.bytes);
    float score = 0.0f;
    for (u32 h = 0; h < a.heads; h++) {
        const float *q = a.queries + ((u64)r * a.heads + h) * dim;
        float sum = 0.0f;
        for (u32 i = lane; i < dim; i += 32) sum += q[i] * values[i];
        sum = warp_sum(sum);
        score += (sum < 0.0f ? 0.0f : sum) * (a.weights[(u64)r * a.heads + h] * a.scale);
    }
    if (lane == 0) a.scores[(u64)blockIdx.y * a.capacity + index] = score;
}
