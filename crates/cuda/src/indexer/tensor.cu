// Scores of index rows on tensor cores: the products of 32 codes of 16 rows and eight heads are one
// instruction, and exact. What follows has one order for every row, so one kernel serves single rows
// and prompts.

// What a block keeps of a query: for tiles of eight heads and groups of 32 codes what each lane has of
// them, the scales of the groups, the weights.
struct IndexQuery {
    uint2 *codes;
    float4 *scales;
    float *weights;
};

// The nearest E2M1 value, doubled, in the last byte, of what a group's scale has brought within their range:
// added to a number with so large a step, x is rounded to that step.
__device__ __forceinline__ u32 doubled_code(float x) {
    x = fminf(fmaxf(x, -6.0f), 6.0f);
    float step = fabsf(x) < 2.0f ? 0x1.8p22f : fabsf(x) < 4.0f ? 0x1.8p23f : 0x1.8p24f;
    return __float_as_uint(__fadd_rn(__fsub_rn(__fadd_rn(x, step), step), 0x1.8p22f));
}

// Heads that a warp prepares at once, so that none of them waits for its own shuffles.
static const u32 BESIDE = 4;

// How values turn that a lane has of every head: those that do not are turned by nothing.
__device__ __forceinline__ float4 lane_turns(const IndexScoreArgs &a, u32 r) {
    u32 at = threadIdx.x % 32 * 4, dim = a.format.values, tail = dim - a.format.rope;
    if (at < tail || at >= dim) return make_float4(1.0f, 0.0f, 1.0f, 0.0f);
    return *(const float4 *)(a.turns + ((u64)r * 4 + a.turn) * (a.format.rope / 2) + (at - tail) / 2);
}

// A warp's heads: four values to a lane, rotated, transformed and rounded as index rows are. What a lane has of
// a head then: four codes, and the scale that it shares with seven others.
template <u32 HEADS> __device__ __forceinline__ void round_heads(float4 (&v)[HEADS], float4 turns, u32 dim, u32 (&codes)[HEADS], float (&scales)[HEADS]) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 i = 0; i < HEADS; i++) {
        float2 low = turned(v[i].x, v[i].y, make_float2(turns.x, turns.y)), high = turned(v[i].z, v[i].w, make_float2(turns.z, turns.w));
        v[i] = make_float4(__fadd_rn(low.x, low.y), __fsub_rn(low.x, low.y), __fadd_rn(high.x, high.y), __fsub_rn(high.x, high.y));
        v[i] = make_float4(__fadd_rn(v[i].x, v[i].z), __fadd_rn(v[i].y, v[i].w), __fsub_rn(v[i].x, v[i].z), __fsub_rn(v[i].y, v[i].w));
    }
#pragma unroll 1
    for (u32 stride = 1; stride < dim / 4; stride *= 2) {
        float sign = lane & stride ? -1.0f : 1.0f;
#pragma unroll
        for (u32 i = 0; i < HEADS; i++)
            v[i] = make_float4(__fmaf_rn(v[i].x, sign, __shfl_xor_sync(FULL, v[i].x, stride)), __fmaf_rn(v[i].y, sign, __shfl_xor_sync(FULL, v[i].y, stride)),
                               __fmaf_rn(v[i].z, sign, __shfl_xor_sync(FULL, v[i].z, stride)), __fmaf_rn(v[i].w, sign, __shfl_xor_sync(FULL, v[i].w, stride)));
    }
    float norm = hadamard_norm(dim);
#pragma unroll
    for (u32 i = 0; i < HEADS; i++) {
        float4 x = make_float4(__fmul_rn(v[i].x, norm), __fmul_rn(v[i].y, norm), __fmul_rn(v[i].z, norm), __fmul_rn(v[i].w, norm));
        // Eight lanes share a scale.
        u32 largest = max(max(__float_as_uint(x.x) & 0x7fffffffu, __float_as_uint(x.y) & 0x7fffffffu), max(__float_as_uint(x.z) & 0x7fffffffu, __float_as_uint(x.w) & 0x7fffffffu));
#pragma unroll
        for (int o = 4; o; o >>= 1) largest = max(largest, __shfl_xor_sync(FULL, largest, o));
        u32 code = fp4_scale(__uint_as_float(min(largest, 0x7f800000u)));
        float inverse = e8m0_inverse(code);
        codes[i] = four_bytes(doubled_code(__fmul_rn(x.x, inverse)), doubled_code(__fmul_rn(x.y, inverse)), doubled_code(__fmul_rn(x.z, inverse)), doubled_code(__fmul_rn(x.w, inverse)));
        scales[i] = 0.25f * e8m0_to_f32(code);
    }
}

// Where a lane's codes of a head stand. Which values make a lane's part of an instruction is free, as long as
// rows do the same.
__device__ __forceinline__ u32 *codes_place(const IndexQuery &q, u32 head) {
    u32 lane = threadIdx.x % 32;
    return (u32 *)q.codes + ((head / 8 * 4 + lane / 8) * 32 + head % 8 * 4) * 2 + lane % 8;
}

// A warp's heads, `step` apart.
__device__ __forceinline__ void stage_heads(const IndexQuery &q, u32 dim, u32 first, u32 step, u32 heads, float4 (&v)[BESIDE], float4 turns) {
    u32 lane = threadIdx.x % 32, padded = (heads + 7) / 8 * 8, codes[BESIDE];
    float scales[BESIDE];
    round_heads<BESIDE>(v, turns, dim, codes, scales);
#pragma unroll
    for (u32 i = 0; i < BESIDE; i++) {
        u32 head = first + i * step;
        bool live = head < heads && 4 * lane < dim;
        if (head >= padded) continue;
        *codes_place(q, head) = live ? codes[i] : 0;
        if (lane % 8 == 0) ((float *)(q.scales + head))[lane / 8] = live ? scales[i] : 0.0f;
    }
}

// Of the first `heads` heads a lane's four values, and the weight: zeros beyond them.
__device__ __forceinline__ float4 query_values(const IndexScoreArgs &a, u32 r, u32 head, u32 heads) {
    u32 at = threadIdx.x % 32 * 4, dim = a.format.values;
    return head < heads && at < dim ? *(const float4 *)(a.queries + ((u64)r * a.heads + head) * dim + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

__device__ __forceinline__ float query_weight(const IndexScoreArgs &a, u32 r, u32 head, u32 heads) {
    return head < heads ? __fmul_rn(a.weights[(u64)r * a.heads + head], a.scale) : 0.0f;
}

__device__ __forceinline__ void stage_query(const IndexScoreArgs &a, const IndexQuery &q, u32 r, float4 turns, u32 heads) {
    u32 warps = blockDim.x / 32, padded = (a.heads + 7) / 8 * 8;
    for (u32 head = threadIdx.x; head < padded; head += blockDim.x) q.weights[head] = query_weight(a, r, head, heads);
#pragma unroll 1
    for (u32 first = threadIdx.x / 32; first < padded; first += BESIDE * warps) {
        float4 v[BESIDE];
#pragma unroll
        for (u32 i = 0; i < BESIDE; i++) v[i] = query_values(a, r, first + i * warps, heads);
        stage_heads(q, a.format.values, first, warps, a.heads, v, turns);
    }
}

// Sixteen index rows as they lie in memory: two to a lane, which has four bytes of each group, and the scales.
struct IndexLines {
    u32 codes[2][4], scales[2];
};

__device__ __forceinline__ const u8 *index_line(const IndexScoreArgs &a, u8 *const *pages, u32 first, u32 i, u32 visible) {
    return page_row(pages, 4, (u32)a.row_at, min(first + threadIdx.x % 32 / 4 + 8 * i, visible - 1), a.format.bytes);
}

__device__ __forceinline__ void fetch_line(const u8 *packed, u32 dim, u32 i, IndexLines &raw) {
#pragma unroll
    for (u32 g = 0; g < 4; g++) raw.codes[i][g] = 32 * g < dim ? *(const u32 *)(packed + 16 * g + threadIdx.x % 4 * 4) : 0;
    raw.scales[i] = *(const u32 *)(packed + dim / 2);
}

__device__ __forceinline__ void fetch_lines(const IndexScoreArgs &a, u8 *const *pages, u32 first, u32 visible, IndexLines &raw) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) fetch_line(index_line(a, pages, first, i, visible), a.format.values, i, raw);
}

// The bits of `WHOLE_FLOAT`: a small whole number added to them is that number added to the float.
static const int WHOLE_BITS = 0x4b400000;

__device__ __forceinline__ float add_group(float product, int whole, float query_scale, float row_scale) {
    return __fmaf_rn(__fmul_rn(__fsub_rn(__int_as_float(whole), WHOLE_FLOAT), query_scale), row_scale, product);
}

// A comparison, not a maximum, so that NaN stays NaN.
__device__ __forceinline__ float add_head(float score, float product, float weight) { return __fmaf_rn(product < 0.0f ? 0.0f : product, weight, score); }

// What an instruction wants of them: codes, doubled, and scales.
__device__ __forceinline__ void decode_lines(const IndexLines &raw, int (&codes)[4][4], float (&scales)[2][4]) {
#pragma unroll
    for (u32 i = 0; i < 2; i++)
#pragma unroll
        for (u32 g = 0; g < 4; g++) {
            codes[g][i] = doubled(raw.codes[i][g] & 0xffff), codes[g][i + 2] = doubled(raw.codes[i][g] >> 16);
            scales[i][g] = e8m0_to_f32(raw.scales[i] >> 8 * g & 255);
        }
}

// The scores of sixteen index rows: of two to four lanes, which all have both.
__device__ __forceinline__ void score_lines(const IndexQuery &q, u32 tiles, u32 groups, const int (&codes)[4][4], const float (&scales)[2][4], float (&score)[2]) {
    u32 lane = threadIdx.x % 32;
    score[0] = score[1] = 0.0f;
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
            uint2 query = q.codes[(t * 4 + g) * 32 + lane];
            mma_bytes(whole, codes[g][0], codes[g][1], codes[g][2], codes[g][3], query.x, query.y);
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
    }
}

extern "C" __global__ void __launch_bounds__(512, 2) index_scores_tensor(const IndexScoreArgs a) {
    extern __shared__ uint4 indexing[];
    invite();
    // What the host tells of a round lies there before its first kernel: rows, turns and tables of pages.
    u32 r = a.first + blockIdx.y, lane = threadIdx.x % 32, first = blockIdx.x * a.lines + threadIdx.x / 32 * 16;
    u8 *const *pages = a.rows[r].pages;
    u32 visible = csa_visible(a.rows[r].position), tiles = (a.heads + 7) / 8, groups = a.format.values / 32;
    bool busy = visible > a.top_k && blockIdx.x * a.lines < visible;
    bool scores = busy && threadIdx.x / 32 * 16 < a.lines && first < visible;
    float4 turns = lane_turns(a, r);
    if (scores) prefetch(index_line(a, pages, first, 0, visible) + lane % 4 * 16), prefetch(index_line(a, pages, first, 1, visible) + lane % 4 * 16);
    IndexQuery q;
    q.codes = (uint2 *)indexing;
    q.scales = (float4 *)(q.codes + tiles * 128);
    q.weights = (float *)(q.scales + tiles * 8);
#pragma unroll 1
    for (u32 pass = first_pass(); pass < 2; pass++) {
        if (pass) await();
        if (!busy) continue;
        IndexLines raw = {};
        if (scores && pass) fetch_lines(a, pages, first, visible, raw);
        stage_query(a, q, r, turns, pass ? a.heads : 0);
        __syncthreads();
        if (!scores) continue;
#pragma unroll 1
        while (true) {
            int codes[4][4];
            float scales[2][4], score[2];
            decode_lines(raw, codes, scales);
            score_lines(q, tiles, groups, codes, scales, score);
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                u32 index = first + lane / 4 + 8 * i;
                if (pass && lane % 4 == 0 && index < visible) a.scores[(u64)blockIdx.y * a.capacity + index] = score[i];
            }
            if (!pass) break;
            first += gridDim.x * a.lines;
            if (first >= visible) break;
            fetch_lines(a, pages, first, visible, raw);
        }
    }
}
