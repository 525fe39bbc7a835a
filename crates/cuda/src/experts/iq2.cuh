// IQ2_XXS times few vectors of bytes: eight magnitudes are looked up as the digits by which `prmt` picks bytes, with
// their signs among them, and tensor cores add up whole numbers.
//
// Of 16 rows and 256 columns a lane holds, of rows g and g + 8, the groups 2 t and 2 t + 1 of 32 columns, g = lane / 4
// and t = lane % 4: those of the other formats' tiles. Each group has a size of its own, so its sum must be had by
// itself: each goes to a column of the product, because what it is multiplied with are zeros in the others. One vector
// takes all eight columns; two take four each, and are multiplied with the even groups first and then with the odd ones.

// Which of the three magnitudes eight weights have: digits of four bits, once for each lane, so that all have banks of
// their own.
struct Iq2Digits {
    u32 eights[256][32];
    __device__ __forceinline__ void fill() {
        for (u32 i = threadIdx.x; i < 256 * 8; i += blockDim.x) {
            u64 bytes = IQ2_XXS_GRID[i / 8];
            u32 digits = of_four((u32)bytes) | of_four((u32)(bytes >> 32)) << 16;
            ((uint4 *)eights)[i] = make_uint4(digits, digits, digits, digits);
        }
    }
    // 8, 25 and 43 are 0, 1 and 2 times 16 and something.
    __device__ __forceinline__ static u32 of_four(u32 bytes) {
        u32 digits = bytes >> 4 & 0x03030303u;
        digits |= digits >> 4;
        return (digits & 0xff) | (digits >> 8 & 0xff00);
    }
    // Where a lane finds its copies.
    __device__ __forceinline__ u32 column() const { return shared_address(this) + threadIdx.x % 32 * sizeof(u32); }
};

// What the digits pick from: magnitudes, and behind them the same with a minus.
static const u32 IQ2_PLUS = 0x002b1908u, IQ2_MINUS = 0x00d5e7f8u;

// The upper half of a word, by a unit that is less busy than the one for shifts.
__device__ __forceinline__ u32 upper_half(u32 x) {
    u32 half;
    asm("dp2a.lo.u32.u32 %0, %1, %2, 0;" : "=r"(half) : "r"(x), "r"(0x0100u));
    return half;
}

// Eight weights of a lane's 64 of a row, as two words of bytes.
__device__ __forceinline__ void iq2_eight(uint4 q, u32 eight, u32 digits, u32 &low, u32 &high) {
    u32 signs = eight < 4 ? q.y : q.w, which = eight % 4;
    signs = which < 3 ? signs << which : signs >> 1; // as `iq2_sign` says
    digits |= signs & 0x44444444u;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(low) : "r"(IQ2_PLUS), "r"(IQ2_MINUS), "r"(digits));
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(high) : "r"(IQ2_PLUS), "r"(IQ2_MINUS), "r"(upper_half(digits)));
}

// What a lane holds of a block of one vector, or two: of the groups 2 t and 2 t + 1, as far as they belong to its column,
// else zeros.
struct ByteRuns {
    uint4 x[4];
    __device__ __forceinline__ ByteRuns() { clear(); }
    __device__ __forceinline__ void clear() { x[0] = x[1] = x[2] = x[3] = make_uint4(0, 0, 0, 0); }
    // `line` is the vector's, of two the first's.
    template <int V> __device__ __forceinline__ void load(u32 line) {
        u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        line += t * 64 + (V == 2 ? g % 2 * BYTE_LINE : 0);
        bool even = V == 2 ? g / 2 == t : g == 2 * t, odd = V == 2 ? even : g == 2 * t + 1;
        staged16_if(x[0], line, even), staged16_if(x[1], line + 16, even), staged16_if(x[2], line + 32, odd), staged16_if(x[3], line + 48, odd);
    }
};

// Two times 16 rows, of tiles that lie one behind the other, with a block of one vector or two. `codes` is where the
// lane's first row lies, `sizes` where its groups' sizes do. Of each vector a lane gets a part of the sums of four rows,
// twice what they are: of the first tile's g and g + 8, and of the second's.
template <int V> __device__ __forceinline__ void iq2_parts(u32 codes, u32 sizes, u32 column, const ByteRuns &runs, int (&part)[V][4]) {
    const u32 tile = TILE_BYTES<IQ2_XXS>, further = 8 * Widths<IQ2_XXS>::codes, sizes_further = 8 * Widths<IQ2_XXS>::scales, ahead = 2;
    uint4 q[2][2];
    u32 size[2][2], digits[16][2];
#pragma unroll
    for (u32 i = 0; i < 4; i++) q[i / 2][i % 2] = staged16(codes + i / 2 * tile + i % 2 * further);
    auto look = [&](u32 i) {
#pragma unroll
        for (u32 r = 0; r < 2; r++) digits[i][r] = shared4(entry_of<sizeof(Iq2Digits::eights[0])>(i < 8 ? q[i % 2][r].x : q[i % 2][r].z, i / 2 % 4, column));
    };
#pragma unroll
    for (u32 i = 0; i < ahead; i++) look(i);
#pragma unroll
    for (u32 i = 0; i < 4; i++) size[i / 2][i % 2] = staged1(sizes + i / 2 * tile + i % 2 * sizes_further);
    auto even = [&](u32 i) { return (int)(size[i / 2][i % 2] << 2 & 0x3c | 2); };
    auto odd = [&](u32 i) { return (int)(size[i / 2][i % 2] >> 2 & 0x3c | 2); };
    int sum[2][4] = {};
#pragma unroll
    for (u32 i = 0; i < 16; i++) {
        u32 m = i % 2, eight = i / 2, low[2], high[2];
        if (i + ahead < 16) look(i + ahead);
#pragma unroll
        for (u32 r = 0; r < 2; r++) iq2_eight(q[m][r], eight, digits[i][r], low[r], high[r]);
        mma_bytes(sum[m], low[0], low[1], high[0], high[1], word(runs.x[eight / 2], eight % 2 * 2), word(runs.x[eight / 2], eight % 2 * 2 + 1));
        if (V == 2 && eight == 3) {
#pragma unroll
            for (u32 r = 0; r < 2; r++)
#pragma unroll
                for (u32 v = 0; v < 2; v++) part[v % V][2 * m + r] = sum[m][2 * r + v] * even(2 * m + r), sum[m][2 * r + v] = 0;
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        int first = sum[i / 2][i % 2 * 2], second = sum[i / 2][i % 2 * 2 + 1];
        if (V == 2)
            part[0][i] += first * odd(i), part[V - 1][i] += second * odd(i);
        else
            part[0][i] = first * even(i) + second * odd(i);
    }
}

// Adds up the parts of the four lanes of a row: lane t gets the sum of row g + t % 2 * 8 of tile t / 2.
__device__ __forceinline__ int sum_of_lanes(const int (&part)[4]) {
    bool second = threadIdx.x & 2, lower = threadIdx.x & 1;
    int upper = (second ? part[2] : part[0]) + __shfl_xor_sync(FULL, second ? part[0] : part[2], 2);
    int below = (second ? part[3] : part[1]) + __shfl_xor_sync(FULL, second ? part[1] : part[3], 2);
    return (lower ? below : upper) + __shfl_xor_sync(FULL, lower ? upper : below, 1);
}

// Where within two tiles the row's unit lies whose sum the lane gets.
__device__ __forceinline__ u32 iq2_unit() {
    u32 lane = threadIdx.x % 32;
    return lane % 4 / 2 * TILE_BYTES<IQ2_XXS> + 16 * Widths<IQ2_XXS>::codes + (lane / 4 + lane % 2 * 8) * Widths<IQ2_XXS>::scales + 4;
}
