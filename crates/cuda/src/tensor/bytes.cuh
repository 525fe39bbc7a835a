// Vectors as whole numbers, with which experts' matrices of IQ2_XXS and Q2_K are multiplied: a value is a byte's number
// times the unit of its 256 columns. Of a block of columns sums of products with such weights are whole numbers too,
// small enough that integers add them without an error, and so do halves with sums in floats, in whatever order: those
// of IQ2_XXS because a unit is so large that they stay below 2^24 (times two). So kernels for one row and for many need
// have nothing else in common.

// 256 columns of a vector of few rows: the bytes, then the unit, and room to the next 16 bytes.
static const u32 BYTE_UNIT = 256, BYTE_LINE = BYTE_UNIT + 16;

// The largest number of a byte, and what the numbers of a block may add up to: less than 2^24 over the largest weight,
// 31 times 43, of which rounding may have added a half for each column.
static const float MOST_BYTE = 127.0f, MOST_BYTES = 12400.0f;

// A float of this size, 1.5 2^23, has no digits behind the point: what is added to it is rounded to a whole number, which
// lies in its lowest bits.
static const float WHOLE_FLOAT = 12582912.0f;

// The lowest bytes of four numbers, side by side.
__device__ __forceinline__ u32 four_bytes(u32 a, u32 b, u32 c, u32 d) { return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410); }

// 16 x 32 bytes times 32 x 8, added to `d`.
__device__ __forceinline__ void mma_bytes(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Where vectors go as whole numbers: of few rows as bytes, of many as halves, whose neighbours are those that two
// halves of a register hold of eight weights: k and k + 4.
struct Numbers {
    u8 *lines;    // [rows][columns / 256] of `BYTE_LINE`, or null
    u16 *halves;  // [rows][columns], or null
    float *units; // [rows][columns / 256], beside halves
};

// What two warps find in 256 columns: the largest magnitude of each, and their sums.
struct Found {
    float2 of[2];
};

// Two warps, the pair of so many that a block may have, meet. Barriers that were named by a variable would all be taken.
__device__ __forceinline__ void meet_pair(u32 pair) {
    if (pair == 0) asm volatile("bar.sync 1, 64;" ::: "memory");
    if (pair == 1) asm volatile("bar.sync 2, 64;" ::: "memory");
    if (pair == 2) asm volatile("bar.sync 3, 64;" ::: "memory");
    if (pair == 3) asm volatile("bar.sync 4, 64;" ::: "memory");
}

// The unit of 256 columns, of which the threads of two warps have four each. Those 64 must call this; `pair` numbers
// the pairs of warps of the block.
__device__ __forceinline__ float unit_of(float4 x, Found &found, u32 pair) {
    float4 y = make_float4(fabsf(x.x), fabsf(x.y), fabsf(x.z), fabsf(x.w));
    // Magnitudes are ordered as their bits, NaN above all.
    u32 most = __reduce_max_sync(FULL, max(max(__float_as_uint(y.x), __float_as_uint(y.y)), max(__float_as_uint(y.z), __float_as_uint(y.w))));
    float sum = warp_sum(__fadd_rn(__fadd_rn(y.x, y.y), __fadd_rn(y.z, y.w)));
    u32 thread = thread_anew();
    if (thread % 32 == 0) found.of[thread / 32 % 2] = make_float2(__uint_as_float(most), sum);
    meet_pair(pair);
    float2 a = found.of[0], b = found.of[1];
    most = max(__float_as_uint(a.x), __float_as_uint(b.x));
    if (most >= 0x7f800000u) return __uint_as_float(0x7fc00000u);
    float unit = fmaxf(__fmul_rn(__uint_as_float(most), 1.0f / MOST_BYTE), __fmul_rn(__fadd_rn(a.y, b.y), 1.0f / MOST_BYTES));
    return unit < 0x1p-100f ? 0.0f : unit;
}

// Stores a thread's four columns from `d` on.
__device__ __forceinline__ void store_numbers(const Numbers &to, u32 row, u32 cols, u32 d, float4 x, Found &found, u32 pair) {
    float unit = unit_of(x, found, pair), per = unit > 0.0f ? __fdiv_rn(1.0f, unit) : 0.0f;
    u64 block = (u64)row * (cols / 256) + d / 256;
    int q[4] = {__float2int_rn(__fmul_rn(x.x, per)), __float2int_rn(__fmul_rn(x.y, per)), __float2int_rn(__fmul_rn(x.z, per)), __float2int_rn(__fmul_rn(x.w, per))};
    if (to.lines) {
        u8 *line = to.lines + block * BYTE_LINE;
        *(u32 *)(line + d % 256) = four_bytes(q[0], q[1], q[2], q[3]);
        if (d % 256 == 0) *(float *)(line + BYTE_UNIT) = unit;
    }
    if (to.halves) {
        // Of eight columns one thread has the first four, the next one the others.
        bool others = d % 8 > 0;
        u32 low = pair_of((float)q[0], (float)q[1]), high = pair_of((float)q[2], (float)q[3]);
        u32 mine = others ? high : low, theirs = __shfl_xor_sync(FULL, others ? low : high, 1);
        u32 first = others ? theirs : mine, second = others ? mine : theirs;
        *(uint2 *)(to.halves + (u64)row * cols + d) = make_uint2(__byte_perm(first, second, 0x5410), __byte_perm(first, second, 0x7632));
        if (d % 256 == 0) to.units[block] = unit;
    }
}

// Vectors that matrices of Q2_K are multiplied with: those have a minimum for each 16 columns, which meets the sum of as
// many numbers. No sum is too large, whatever the unit.
struct InnerNumbers {
    u16 *sums;    // of many rows: [pairs][columns / 256][16], halves
    float *units; // of many rows: [pairs][columns / 256]
};

// 256 columns of a vector of few rows: bytes, of each four the two in the middle in turned order, as `split_blocks` turns
// codes; the sums' lower six bits, with a sign, and what is above them; the unit, and room to the next 16 bytes.
static const u32 INNER_SUMS = 256, INNER_UNIT = INNER_SUMS + 2 * 16, INNER_LINE = INNER_UNIT + 16;

// What a lane has of 256 columns: eight, which are the first or the second half of 16.
struct InnerEight {
    float above[8]; // the numbers, by `WHOLE_FLOAT` more than they are
    u32 low, high;  // as bytes
    int sum;        // of 16
    float unit;
    explicit __device__ __forceinline__ InnerEight(uint4 halves) {
        float x[8];
        u32 most = 0;
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            u32 two = i < 2 ? halves.x : i < 4 ? halves.y : i < 6 ? halves.z : halves.w;
            x[i] = f16_to_f32((u16)(i % 2 ? two >> 16 : two)), most = max(most, __float_as_uint(fabsf(x[i])));
        }
        most = __reduce_max_sync(FULL, most);
        // The smallest half is not so small that it has no inverse.
        unit = most >= 0x7f800000u ? __uint_as_float(0x7fc00000u) : __fmul_rn(__uint_as_float(most), 1.0f / MOST_BYTE);
        float per = unit > 0.0f ? __fdiv_rn(1.0f, unit) : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 8; i++) above[i] = __fmaf_rn(x[i], per, WHOLE_FLOAT);
        low = bytes(0), high = bytes(4);
        sum = __dp4a((int)low, 0x01010101, __dp4a((int)high, 0x01010101, 0));
        sum += __shfl_xor_sync(FULL, sum, 1);
    }
    __device__ __forceinline__ u32 bytes(u32 i) const {
        return four_bytes(__float_as_uint(above[i]), __float_as_uint(above[i + 2]), __float_as_uint(above[i + 1]), __float_as_uint(above[i + 3]));
    }
    __device__ __forceinline__ float number(u32 i) const { return __fadd_rn(above[i], -WHOLE_FLOAT); }
    // As a part of a line, wherever that is.
    __device__ __forceinline__ void store(u8 *line) const {
        u32 lane = threadIdx.x % 32;
        *(uint2 *)(line + 8 * lane) = make_uint2(low, high);
        int above = (sum + 32) >> 6;
        if (lane % 2 == 0) line[INNER_SUMS + lane / 2] = (u8)(sum - 64 * above), line[INNER_SUMS + 16 + lane / 2] = (u8)above;
        if (lane == 0) *(float *)(line + INNER_UNIT) = unit;
    }
};
