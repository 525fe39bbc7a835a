// Scores of index rows on tensor cores: the products of 32 codes of 16 rows and eight heads are one
// instruction, and exact. What follows has one order for every row, so one kernel serves single rows
// and prompts.

static const u32 INDEX_LINES = 128; // index rows that a block scores at once, 16 to a warp

struct IndexTensorArgs {
    const Row *rows;
    const float2 *turns;
    const float *queries; // [rows][heads][dim]
    const float *weights; // [rows][heads]
    float *scores;        // [rows][capacity]
    RowFormat format;
    u64 row_at;
    u32 heads, capacity, top_k, first;
    u32 turn;
    float scale;
};

// What a block keeps of a query: for tiles of eight heads and groups of 32 codes what each lane has of
// them, the scales of the groups, the weights.
struct IndexQuery {
    uint2 *codes;
    float4 *scales;
    float *weights;
};

// A warp takes a head: four values to a lane, rotated, transformed and rounded as index rows are.
__device__ __forceinline__ void stage_head(const IndexQuery &q, u32 dim, u32 head, float4 v, float4 turns, bool live) {
    u32 lane = threadIdx.x % 32;
    float2 low = turned(v.x, v.y, make_float2(turns.x, turns.y)), high = turned(v.z, v.w, make_float2(turns.z, turns.w));
    v = make_float4(low.x, low.y, high.x, high.y);
    v = make_float4(v.x + v.y, v.x - v.y, v.z + v.w, v.z - v.w);
    v = make_float4(v.x + v.z, v.y + v.w, v.x - v.z, v.y - v.w);
    for (u32 stride = 1; stride < dim / 4; stride *= 2) {
        bool upper = lane & stride;
        float4 o = make_float4(__shfl_xor_sync(FULL, v.x, stride), __shfl_xor_sync(FULL, v.y, stride), __shfl_xor_sync(FULL, v.z, stride), __shfl_xor_sync(FULL, v.w, stride));
        v = upper ? make_float4(o.x - v.x, o.y - v.y, o.z - v.z, o.w - v.w) : make_float4(v.x + o.x, v.y + o.y, v.z + o.z, v.w + o.w);
    }
    float norm = hadamard_norm(dim);
    v = make_float4(__fmul_rn(v.x, norm), __fmul_rn(v.y, norm), __fmul_rn(v.z, norm), __fmul_rn(v.w, norm));
    // Eight lanes share a scale.
    u32 largest = max(max(__float_as_uint(v.x) & 0x7fffffffu, __float_as_uint(v.y) & 0x7fffffffu), max(__float_as_uint(v.z) & 0x7fffffffu, __float_as_uint(v.w) & 0x7fffffffu));
#pragma unroll
    for (int o = 4; o; o >>= 1) largest = max(largest, __shfl_xor_sync(FULL, largest, o));
    u32 scale_code = fp4_scale(__uint_as_float(min(largest, 0x7f800000u)));
    float scale = e8m0_to_f32(scale_code), inverse = e8m0_inverse(scale_code);
    float values[4] = {v.x, v.y, v.z, v.w};
    u32 codes = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) codes |= ((u32)(int)(2.0f * e2m1_to_f32(f32_to_e2m1(values[i] * inverse))) & 255) << 8 * i;
    // Which values make a lane's part of an instruction is free, as long as rows do the same.
    ((u32 *)q.codes)[(((head / 8 * 4 + lane / 8) * 32) + head % 8 * 4 + lane % 8 / 2) * 2 + lane % 2] = live ? codes : 0;
    if (lane % 8 == 0) ((float *)(q.scales + head))[lane / 8] = live ? 0.25f * scale : 0.0f;
}

// Eight heads to a warp at once, so that their loads are under way together.
__device__ __forceinline__ void stage_query(const IndexTensorArgs &a, const IndexQuery &q, u32 r, u32 padded) {
    u32 warp = threadIdx.x / 32, dim = a.format.values, at = threadIdx.x % 32 * 4, tail = dim - a.format.rope;
    for (u32 head = threadIdx.x; head < padded; head += blockDim.x)
        q.weights[head] = head < a.heads ? __fmul_rn(a.weights[(u64)r * a.heads + head], a.scale) : 0.0f;
    // Values that do not turn are turned by nothing.
    float4 turns = make_float4(1.0f, 0.0f, 1.0f, 0.0f);
    if (at >= tail && at < dim) turns = *(const float4 *)(a.turns + ((u64)r * 4 + a.turn) * (a.format.rope / 2) + (at - tail) / 2);
    for (u32 first = warp; first < padded; first += 64) {
        float4 v[8];
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            bool live = first + 8 * i < a.heads && at < dim;
            v[i] = live ? *(const float4 *)(a.queries + ((u64)r * a.heads + first + 8 * i) * dim + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            if (first + 8 * i >= padded) break;
            stage_head(q, dim, first + 8 * i, v[i], turns, first + 8 * i < a.heads && at < dim);
        }
    }
}

// d = c + a b, of 16 by 32 and 32 by 8 signed bytes.
__device__ __forceinline__ void multiply_codes(int (&d)[4], const int (&a)[4], uint2 b) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}

// The bits of 1.5 2^23: a small whole number added to them is that number added to the float.
static const int WHOLE_BITS = 0x4b400000;
static const float WHOLE_FLOAT = 12582912.0f;

__device__ __forceinline__ float add_group(float product, int whole, float query_scale, float row_scale) {
    return __fmaf_rn(__fmul_rn(__fsub_rn(__int_as_float(whole), WHOLE_FLOAT), query_scale), row_scale, product);
}

// A comparison, not a maximum, so that NaN stays NaN.
__device__ __forceinline__ float add_head(float score, float product, float weight) { return __fmaf_rn(product < 0.0f ? 0.0f : product, weight, score); }

extern "C" __global__ void __launch_bounds__(256, 2) index_scores_tensor(const IndexTensorArgs a) {
    extern __shared__ uint4 indexing[];
    enter();
    u32 r = a.first + blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Row row = a.rows[r];
    u32 visible = csa_visible(row.position);
    if (visible <= a.top_k || blockIdx.x * INDEX_LINES >= visible) return;
    u32 tiles = (a.heads + 7) / 8, dim = a.format.values, groups = dim / 32;
    IndexQuery q;
    q.codes = (uint2 *)indexing;
    q.scales = (float4 *)(q.codes + tiles * 128);
    q.weights = (float *)(q.scales + tiles * 8);
    stage_query(a, q, r, 8 * tiles);
    __syncthreads();
    for (u32 first = blockIdx.x * INDEX_LINES + 16 * warp; first < visible; first += gridDim.x * INDEX_LINES) {
        int codes[4][4] = {};
        float scales[2][4] = {};
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            u32 index = min(first + lane / 4 + 8 * i, visible - 1);
            const u8 *packed = page_row(row.pages, 4, (u32)a.row_at, index, a.format.bytes);
#pragma unroll
            for (u32 g = 0; g < 4; g++) {
                if (g >= groups) continue;
                u32 nibbles = *(const u32 *)(packed + 16 * g + 4 * (lane % 4));
                codes[g][i] = doubled(nibbles & 0xffff), codes[g][i + 2] = doubled(nibbles >> 16);
                scales[i][g] = e8m0_to_f32(packed[dim / 2 + g]);
            }
        }
        float score[2] = {0.0f, 0.0f};
#pragma unroll 2
        for (u32 t = 0; t < tiles; t++) {
            float products[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            u32 head = 8 * t + lane % 4 * 2;
            float4 even = q.scales[head], odd = q.scales[head + 1];
            float query_scales[2][4] = {{even.x, even.y, even.z, even.w}, {odd.x, odd.y, odd.z, odd.w}};
#pragma unroll
            for (u32 g = 0; g < 4; g++) {
                if (g >= groups) continue;
                int whole[4] = {WHOLE_BITS, WHOLE_BITS, WHOLE_BITS, WHOLE_BITS};
                multiply_codes(whole, codes[g], q.codes[(t * 4 + g) * 32 + lane]);
#pragma unroll
                for (u32 c = 0; c < 4; c++) products[c] = add_group(products[c], whole[c], query_scales[c % 2][g], scales[c / 2][g]);
            }
            float2 weights = *(const float2 *)(q.weights + head);
#pragma unroll
            for (u32 i = 0; i < 2; i++) score[i] = add_head(add_head(score[i], products[2 * i], weights.x), products[2 * i + 1], weights.y);
        }
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            score[i] += __shfl_xor_sync(FULL, score[i], 1);
            score[i] += __shfl_xor_sync(FULL, score[i], 2);
            u32 index = first + lane / 4 + 8 * i;
            if (lane % 4 == 0 && index < visible) a.scores[(u64)blockIdx.y * a.capacity + index] = score[i];
        }
    }
}
