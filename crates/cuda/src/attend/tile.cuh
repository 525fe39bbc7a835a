// A tile of attention on tensor cores: 64 of the rows that a row of the round sees, as halves; their
// products with queries, the weights that follow, and the sums of what is weighed. All of it follows from
// the position of the row alone.

static const u32 SPAN = 64;         // rows of a tile
static const u32 LINE = 520;        // halves from one row or query to the next
static const u32 SCORE_LINE = 68;   // floats from one head's scores to the next
static const u32 WEIGHT_LINE = 72;  // halves from one head's weights to the next
static const u32 SCALED = 7;        // of 64 codes under a scale, in the rows that models have
static const u32 ROW_BYTES = 584;   // those, eight bytes of scales, 64 halves
static const float LOG2E = 1.4426950408889634f;

// ------------------------------------------------------------------ instructions

__device__ __forceinline__ float exp2_near(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Matrices of eight by eight halves, whose rows the lanes name eight at a time.
__device__ __forceinline__ void load_matrices(u32 (&d)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(shared_address(row)));
}

__device__ __forceinline__ void load_turned(u32 (&d)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(shared_address(row)));
}

// ------------------------------------------------------------------ rows as halves

// A power of two with 256 times its value as a half, twice: codes are spread with a 256th of theirs.
// What no half can hold is as large, or small, as one can be. There is no branch in it.
__device__ __forceinline__ u32 half_scale(u32 code) {
    return code == 255 ? 0x7e007e00u : both(__uint_as_float((min(code, 134u) << 23) + (8u << 23)));
}

// Two E4M3 codes, in the upper bytes of both halves, to halves of a 256th of their values.
__device__ __forceinline__ u32 spread_codes(u32 codes) { return (codes & 0x80008000u) | (codes >> 1 & 0x3f803f80u); }

__device__ __forceinline__ uint4 decode_codes(uint2 codes, u32 scale) {
    return make_uint4(pair_mul(spread_codes(__byte_perm(codes.x, 0, 0x1404)), scale),
                      pair_mul(spread_codes(__byte_perm(codes.x, 0, 0x3424)), scale),
                      pair_mul(spread_codes(__byte_perm(codes.y, 0, 0x1404)), scale),
                      pair_mul(spread_codes(__byte_perm(codes.y, 0, 0x3424)), scale));
}

// The shape that models have; every other one is decoded value by value.
__device__ __forceinline__ bool usual(const RowFormat &f) {
    return !f.plain && f.values == 512 && f.nope == 64 * SCALED && f.rope_at == 64 * SCALED + 8 && f.bytes == ROW_BYTES;
}

// Where a thread's eight bytes of a group begin: the halves are two groups more, behind the scales.
__device__ __forceinline__ u32 unit_at(u32 group) { return 64 * group + (group < SCALED ? 0 : 8) + threadIdx.x % 8 * 8; }

// A thread's part of a tile as it lies in memory, all of its loads at once: eight bytes of every group,
// of two rows.
struct Fetched {
    uint2 units[2][SCALED + 2], scales[2];
};

__device__ __forceinline__ void fetch(Fetched &raw, const u8 *const *places) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        const u8 *place = places[32 * i + threadIdx.x / 8];
#pragma unroll
        for (u32 g = 0; g < SCALED + 2; g++) raw.units[i][g] = place ? *(const uint2 *)(place + unit_at(g)) : make_uint2(0, 0);
        raw.scales[i] = place ? *(const uint2 *)(place + 64 * SCALED) : make_uint2(0, 0);
    }
}

__device__ __forceinline__ void decode_row(const uint2 (&units)[SCALED + 2], uint2 scales, u16 *line) {
#pragma unroll
    for (u32 g = 0; g < SCALED; g++)
        *(uint4 *)(line + 64 * g + threadIdx.x % 8 * 8) = decode_codes(units[g], half_scale(__byte_perm(g < 4 ? scales.x : scales.y, 0, 0x4440 + g % 4)));
#pragma unroll
    for (u32 g = 0; g < 2; g++) *(uint2 *)(line + 64 * SCALED + 32 * g + threadIdx.x % 8 * 4) = units[SCALED + g];
}

__device__ __forceinline__ void decode_tile(const Fetched &raw, u16 *tile) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) decode_row(raw.units[i], raw.scales[i], tile + (32 * i + threadIdx.x / 8) * LINE);
}

__device__ __forceinline__ void copy_ahead(u8 *to, const u8 *from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 8 : 0) : "memory");
}

// The same through shared memory, where a block has no registers to spare.
__device__ __forceinline__ void ask_tile(const u8 *const *places, const u8 *anywhere, u8 *raw) {
#pragma unroll 1
    for (u32 line = threadIdx.x / 8; line < SPAN; line += 32) {
        const u8 *place = places[line], *from = place ? place : anywhere;
#pragma unroll
        for (u32 g = 0; g < SCALED + 2; g++) copy_ahead(raw + line * ROW_BYTES + unit_at(g), from + unit_at(g), place);
        if (threadIdx.x % 8 == 0) copy_ahead(raw + line * ROW_BYTES + 64 * SCALED, from + 64 * SCALED, place);
    }
}

__device__ __forceinline__ void await_tile() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ __forceinline__ void decode_asked(const u8 *raw, u16 *tile) {
#pragma unroll 1
    for (u32 line = threadIdx.x / 8; line < SPAN; line += 32) {
        const u8 *row = raw + line * ROW_BYTES;
        uint2 units[SCALED + 2];
#pragma unroll
        for (u32 g = 0; g < SCALED + 2; g++) units[g] = *(const uint2 *)(row + unit_at(g));
        decode_row(units, *(const uint2 *)(row + 64 * SCALED), tile + line * LINE);
    }
}

// A half, the largest one in place of an infinity.
__device__ __forceinline__ float within_halves(float x) { return fabsf(x) > 65504.0f ? copysignf(65504.0f, x) : x; }

__device__ __forceinline__ void decode_any(const RowFormat &f, const u8 *const *places, u32 width, u16 *tile) {
    for (u32 i = threadIdx.x; i < SPAN * (width / 4); i += blockDim.x) {
        u32 line = i / (width / 4), at = i % (width / 4) * 4;
        const u8 *place = places[line];
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (place && at < f.values) v = f.plain ? *(const float4 *)(place + 4 * at) : decode4(packed4(place, f, at), f, at);
        *(uint2 *)(tile + line * LINE + at) = make_uint2(pair_of(within_halves(v.x), within_halves(v.y)), pair_of(within_halves(v.z), within_halves(v.w)));
    }
}

// ------------------------------------------------------------------ queries

// x and y turned by (cosine, sine); the roundings must not depend on the compiler's mood.
__device__ __forceinline__ float2 turned(float x, float y, float2 t) {
    return make_float2(__fmaf_rn(-y, t.y, __fmul_rn(x, t.x)), __fmaf_rn(y, t.x, __fmul_rn(x, t.y)));
}

// Queries divided by their root mean square and rotated, as halves; a warp takes one at a time.
__device__ __forceinline__ void stage_queries(const AttendArgs &a, u32 r, u32 first_head, u32 heads, u32 width, u16 *queries) {
    u32 lane = threadIdx.x % 32, dim = a.format.values, nope = dim - a.format.rope;
    // Values that do not turn are turned by nothing.
    float4 turns[QUADS];
#pragma unroll
    for (u32 j = 0; j < QUADS; j++) {
        u32 at = 4 * lane + 128 * j;
        turns[j] = make_float4(1.0f, 0.0f, 1.0f, 0.0f);
        if (at >= nope && at < dim) turns[j] = *(const float4 *)(a.turns + ((u64)r * 4 + a.turn) * (a.format.rope / 2) + (at - nope) / 2);
    }
    for (u32 i = threadIdx.x / 32; i < heads; i += 8) {
        bool live = first_head + i < a.heads;
        const float *mine = a.q + ((u64)r * a.heads + first_head + i) * dim;
        float4 q[QUADS];
        float squares = 0.0f;
#pragma unroll
        for (u32 j = 0; j < QUADS; j++) {
            u32 at = 4 * lane + 128 * j;
            q[j] = live && at < dim ? __ldcg((const float4 *)(mine + at)) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
#pragma unroll
        for (u32 j = 0; j < QUADS; j++)
            squares = __fmaf_rn(q[j].x, q[j].x, __fmaf_rn(q[j].y, q[j].y, __fmaf_rn(q[j].z, q[j].z, __fmaf_rn(q[j].w, q[j].w, squares))));
        float inverse = 1.0f / sqrtf(__fadd_rn(warp_sum(squares) / (float)dim, a.eps));
#pragma unroll
        for (u32 j = 0; j < QUADS; j++) {
            u32 at = 4 * lane + 128 * j;
            float2 low = turned(__fmul_rn(q[j].x, inverse), __fmul_rn(q[j].y, inverse), make_float2(turns[j].x, turns[j].y));
            float2 high = turned(__fmul_rn(q[j].z, inverse), __fmul_rn(q[j].w, inverse), make_float2(turns[j].z, turns[j].w));
            if (at < width) *(uint2 *)(queries + i * LINE + at) = make_uint2(pair_of(low.x, low.y), pair_of(high.x, high.y));
        }
    }
}

// ------------------------------------------------------------------ one tile

// The largest exponent that a head has met, to the base of two, and the sum of powers below it.
struct Softmax {
    float largest, total;
};

// The memory of a block that takes eight times N heads.
template <int N> struct AttendShared {
    u16 queries[8 * N * LINE];
    u16 tile[SPAN * LINE];
    float scores[2][8 * N * SCORE_LINE]; // of the two halves of the values; then what parts weigh
    u16 weights[8 * N * WEIGHT_LINE];
    const u8 *places[2][SPAN];
    u8 raw[N == 8 ? SPAN * ROW_BYTES : 16];
    Softmax met[8 * N];
    float2 shares[8 * N]; // what a head keeps of its sums, and takes of the tile's
    float norms[8 * N];
    u32 last;
};

// The host knows it too.
template <int N> constexpr u32 ATTEND_SHARED = N * 13984 + 67616 + (N == 8 ? SPAN * ROW_BYTES - 16 : 0);
static_assert(sizeof(AttendShared<1>) <= ATTEND_SHARED<1> && sizeof(AttendShared<2>) <= ATTEND_SHARED<2> && sizeof(AttendShared<8>) <= ATTEND_SHARED<8>, "shared memory of attention");

// Rows times queries. Four warps take the first half of the values, four the second; a warp takes M
// times 16 rows and some heads.
template <int N> __device__ __forceinline__ void score_tile(AttendShared<N> &m, u32 width) {
    constexpr int M = N == 8 ? 2 : 1, HEAD_TILES = N / M;
    u32 thread = thread_anew(), lane = thread % 32, half = thread / 128, quarter = thread / 32 % 4;
    u32 first_row = quarter % (4 / M) * 16 * M, first_head = quarter / (4 / M) * 8 * HEAD_TILES;
    u32 steps = width / 16, middle = (steps + 1) / 2, end = half ? steps : middle;
    float sums[M][HEAD_TILES][4] = {};
    const u16 *rows = m.tile + (first_row + lane % 16) * LINE + lane / 16 * 8;
    const u16 *heads = m.queries + (first_head + lane % 8 + (HEAD_TILES > 1 ? lane / 16 * 8 : 0)) * LINE + lane / 8 % 2 * 8;
#pragma unroll 4
    for (u32 k = half ? middle : 0; k < end; k++) {
        u32 a[M][4];
#pragma unroll
        for (int i = 0; i < M; i++) load_matrices(a[i], rows + i * 16 * LINE + k * 16);
#pragma unroll
        for (int j = 0; j < HEAD_TILES; j += 2) {
            u32 b[4]; // of two tiles of heads; the same one twice where there is one
            load_matrices(b, heads + j * 8 * LINE + k * 16);
#pragma unroll
            for (int i = 0; i < M; i++) {
                mma(sums[i][j], a[i][0], a[i][1], a[i][2], a[i][3], b[0], b[1]);
                if (HEAD_TILES > 1) mma(sums[i][(j + 1) % HEAD_TILES], a[i][0], a[i][1], a[i][2], a[i][3], b[2], b[3]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < HEAD_TILES; j++) {
            float *to = m.scores[half] + (first_head + 8 * j + lane % 4 * 2) * SCORE_LINE + first_row + 16 * i + lane / 4;
            to[0] = sums[i][j][0], to[SCORE_LINE] = sums[i][j][1];
            to[8] = sums[i][j][2], to[SCORE_LINE + 8] = sums[i][j][3];
        }
}

__device__ __forceinline__ Softmax sink(const AttendArgs &a, u32 head) {
    return Softmax{__fmul_rn(a.sinks[min(head, a.heads - 1)], LOG2E), 1.0f};
}

// How much of the sums before stays, and of the sums that come.
__device__ __forceinline__ float2 merge(Softmax &s, float largest, float total) {
    float max = fmaxf(s.largest, largest);
    float2 share = make_float2(exp2_near(__fsub_rn(s.largest, max)), exp2_near(__fsub_rn(largest, max)));
    s.total = __fmaf_rn(total, share.y, __fmul_rn(s.total, share.x));
    s.largest = max;
    return share;
}

// Scores to weights: four lanes look after a head, a warp after eight of them.
template <int N> __device__ __forceinline__ void weigh_tile(AttendShared<N> &m, u32 count, float scale) {
    u32 thread = thread_anew(), head = thread / 4, first = thread % 4 * 4;
    if (head >= 8 * N) return;
    float x[SPAN / 4], largest = -INFINITE, total = 0.0f;
#pragma unroll
    for (u32 i = 0; i < SPAN / 16; i++) {
        float4 low = *(const float4 *)(m.scores[0] + head * SCORE_LINE + first + 16 * i);
        float4 high = *(const float4 *)(m.scores[1] + head * SCORE_LINE + first + 16 * i);
        float both[4] = {__fadd_rn(low.x, high.x), __fadd_rn(low.y, high.y), __fadd_rn(low.z, high.z), __fadd_rn(low.w, high.w)};
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            x[4 * i + e] = first + 16 * i + e < count ? __fmul_rn(both[e], __fmul_rn(scale, LOG2E)) : -INFINITE;
            largest = fmaxf(largest, x[4 * i + e]);
        }
    }
    largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, 2));
#pragma unroll
    for (u32 i = 0; i < SPAN / 4; i++) {
        x[i] = exp2_near(__fsub_rn(x[i], largest));
        total = __fadd_rn(total, x[i]);
    }
#pragma unroll
    for (u32 i = 0; i < SPAN / 16; i++)
        *(uint2 *)(m.weights + head * WEIGHT_LINE + first + 16 * i) = make_uint2(pair_of(x[4 * i], x[4 * i + 1]), pair_of(x[4 * i + 2], x[4 * i + 3]));
    total += __shfl_xor_sync(FULL, total, 1);
    total += __shfl_xor_sync(FULL, total, 2);
    Softmax met = m.met[head];
    float2 share = merge(met, largest, total);
    __syncwarp();
    if (first == 0) m.shares[head] = share, m.met[head] = met;
}

// A warp's sums: 64 values of every head, as tiles of 16 values by eight heads.
template <int N> using Sums = float[4][N][4];

__device__ __forceinline__ void merge_sums(float (&sums)[4], const float (&more)[4], float4 shares) {
    sums[0] = __fmaf_rn(more[0], shares.y, __fmul_rn(sums[0], shares.x));
    sums[1] = __fmaf_rn(more[1], shares.w, __fmul_rn(sums[1], shares.z));
    sums[2] = __fmaf_rn(more[2], shares.y, __fmul_rn(sums[2], shares.x));
    sums[3] = __fmaf_rn(more[3], shares.w, __fmul_rn(sums[3], shares.z));
}

// Weights times rows, added to the sums.
template <int N> __device__ __forceinline__ void add_tile(const AttendShared<N> &m, Sums<N> &sums) {
    u32 thread = thread_anew(), lane = thread % 32, first_value = thread / 32 * 64;
    const u16 *values = m.tile + (lane / 16 * 8 + lane % 8) * LINE + first_value + lane / 8 % 2 * 8;
    const u16 *weights = m.weights + lane % 8 * WEIGHT_LINE + lane / 8 * 8;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u32 a[SPAN / 16][4];
#pragma unroll
        for (int k = 0; k < (int)SPAN / 16; k++) load_turned(a[k], values + k * 16 * LINE + i * 16);
#pragma unroll
        for (int j = 0; j < N; j++) {
            u32 b[2][4];
            load_matrices(b[0], weights + j * 8 * WEIGHT_LINE);
            load_matrices(b[1], weights + j * 8 * WEIGHT_LINE + 32);
            // Keeps the assembler from beginning so much at once that registers run out.
            __syncwarp();
            float more[4] = {};
#pragma unroll
            for (int k = 0; k < (int)SPAN / 16; k++) mma(more, a[k][0], a[k][1], a[k][2], a[k][3], b[k / 2][k % 2 * 2], b[k / 2][k % 2 * 2 + 1]);
            merge_sums(sums[i][j], more, *(const float4 *)(m.shares + 8 * j + lane % 4 * 2));
        }
    }
}
