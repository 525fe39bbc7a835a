// Q2_K times few vectors of bytes. Four weights of a byte each are multiplied with their scale at once, and tensor cores
// add up whole numbers; the minima are multiplied with sums of the vector, which have two columns each, because they are
// larger than a byte.

// 16 x 32 weights without a sign times 32 x 8 numbers, added to `d`; and 16 x 16 times 16 x 8.
__device__ __forceinline__ void mma_unsigned(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma_unsigned(int (&d)[4], u32 a0, u32 a1, u32 b0) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b0));
}

// What a lane holds of a block of up to three vectors: vector v is column 2 v of the products, its sums are 2 v and the
// next. Other lanes hold what they held: nobody looks at what comes of it.
struct InnerRuns {
    uint4 x[4];
    u32 sums;
    // One vector in all columns: nothing of what was held is kept.
    explicit __device__ __forceinline__ InnerRuns(u32 line) {
        u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        sums = staged4(line + INNER_SUMS + g % 2 * 16 + t * 4);
#pragma unroll
        for (u32 s = 0; s < 4; s++) x[s] = staged16(line + Codes<Q2_K>::start(s, t));
    }
    // Zeros, where others are to come.
    __device__ __forceinline__ InnerRuns() : sums(0) { x[0] = x[1] = x[2] = x[3] = make_uint4(0, 0, 0, 0); }
    // `line` is the first vector's.
    __device__ __forceinline__ void load(u32 line, u32 count) {
        u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        bool there = g / 2 < count;
        line += g / 2 * INNER_LINE;
        staged4_if(sums, line + INNER_SUMS + g % 2 * 16 + t * 4, there);
        there = there && g % 2 == 0, line += Codes<Q2_K>::start(0, t);
#pragma unroll
        for (u32 s = 0; s < 4; s++) staged16_if(x[s], line + s * Codes<Q2_K>::start(1, 0), there);
    }
};

// 16 rows, whose tile this is, with a block of vectors: lane t gets what comes of vector t for rows g and g + 8.
__device__ __forceinline__ void q2_block(u32 tile, const InnerRuns &runs, float (&value)[2]) {
    const u32 further = 8 * Widths<Q2_K>::codes, scales_further = 8 * Widths<Q2_K>::scales;
    u32 lane = threadIdx.x % 32, t = lane % 4, row = tile + 16 * Widths<Q2_K>::codes + lane / 4 * Widths<Q2_K>::scales, codes = tile + lane * 16;
    uint4 q[2];
    u32 scale[2][4], minima[2], scales[2];
#pragma unroll
    for (u32 r = 0; r < 2; r++) {
        q[r] = staged16(codes + r * further);
        u32 first = staged4(row + r * scales_further + t / 2 * 8), second = staged4(row + r * scales_further + t / 2 * 8 + 4);
        scales[r] = staged4(row + r * scales_further + 16);
        minima[r] = (t % 2 ? second : first) >> 4 & 0x0f0f0f0fu;
        first >>= t % 2 * 8, second >>= t % 2 * 8;
        scale[r][0] = first & 15, scale[r][1] = first >> 16 & 15, scale[r][2] = second & 15, scale[r][3] = second >> 16 & 15;
    }
    // Every second run's codes stay where they are, and count four times.
    int ones[4] = {}, fours[4] = {}, of_minima[4] = {};
    mma_unsigned(of_minima, minima[0], minima[1], runs.sums);
#pragma unroll
    for (u32 s = 0; s < 4; s++)
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            u32 a[2][2];
#pragma unroll
            for (u32 r = 0; r < 2; r++)
#pragma unroll
                for (u32 i = 0; i < 2; i++) a[r][i] = (word(q[r], 2 * h + i) >> s / 2 * 4 & (s % 2 ? 0x0c0c0c0cu : 0x03030303u)) * scale[r][s];
            mma_unsigned(s % 2 ? fours : ones, a[0][0], a[1][0], a[0][1], a[1][1], word(runs.x[s], 2 * h), word(runs.x[s], 2 * h + 1));
        }
#pragma unroll
    for (u32 r = 0; r < 2; r++)
        value[r] = q2_value((float)(ones[2 * r] + (fours[2 * r] >> 2)), (float)(of_minima[2 * r] + 64 * of_minima[2 * r + 1]), scales[r]);
}

// ------------------------------------------------------------------ inner vectors as whole numbers

// Makes whole numbers of the inner vectors of chosen experts, in their places: lines of bytes of a few rows', halves of
// many rows', whose sums and units go elsewhere. A warp takes 256 columns. Who comes behind it
// may begin at once, with what has been chosen: the kernel before it invited when that was there.
extern "C" __global__ void __launch_bounds__(128) number_inner(const __grid_constant__ HalfExpertsArgs a) {
    const ExpertsArgs &e = a.e;
    enter();
    u32 blocks = e.inner / 256, lane = threadIdx.x % 32, i = blockIdx.x * 4 + threadIdx.x / 32, choice = i / blocks, block = i % blocks;
    if (choice >= a.rows * e.used) return;
    u64 pair = choice / e.used * (e.used + 1) + choice % e.used, at = pair * blocks + block;
    uint4 *place = (uint4 *)(a.middle + at * 256);
    const InnerEight eight(place[lane]);
    __syncwarp();
    if (!a.inner.units) return eight.store((u8 *)place);
    u32 pairs[4];
#pragma unroll
    for (u32 k = 0; k < 4; k++) pairs[k] = pair_of(eight.number(2 * k), eight.number(2 * k + 1));
    place[lane] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    if (lane % 2 == 0) a.inner.sums[at * 16 + lane / 2] = half_of((float)eight.sum);
    if (lane == 0) a.inner.units[at] = eight.unit;
}
