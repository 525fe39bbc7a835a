// Experts' weights as whole numbers in halves, for vectors that are such numbers too (`bytes.cuh` says what they are):
// what scales 256 columns of a row comes when the products of such a block are summed.

// Whether sums of blocks are whole numbers, which are scaled one by one.
template <int F> constexpr bool BY_BLOCKS = F == IQ2_XXS || F == WHOLE_Q2_K;

// The magnitudes of IQ2_XXS as eight halves, in pairs of k and k + 4, eight times over: each of eight lanes that read
// together has banks of its own.
struct Iq2Table {
    uint4 eights[256][8];
};

// Where a lane finds its copies.
__device__ __forceinline__ u32 column_of(const Iq2Table *table) { return shared_address(table) + threadIdx.x % 8 * 16; }

__device__ __forceinline__ void fill(Iq2Table &table) {
#pragma unroll 8
    for (u32 i = threadIdx.x; i < 256 * 8; i += blockDim.x) {
        u64 bytes = IQ2_XXS_GRID[i / 8];
        u32 low = (u32)bytes, high = (u32)(bytes >> 32);
        auto pair = [&](u32 k) { return pair_sub(((low >> 8 * k & 255) | (high >> 8 * k & 255) << 16) | 0x64006400u, 0x64006400u); };
        table.eights[i / 8][i % 8] = make_uint4(pair(0), pair(1), pair(2), pair(3));
    }
}

// Twice what `Numbers` are multiplied with: whole numbers. What scales 256 columns of a row comes afterwards.
template <> struct Codes<IQ2_XXS> {
    uint4 q;
    u32 sizes; // of the lane's groups, twice 2 n + 1
    u32 unit;  // the row's, a half
    __device__ __forceinline__ static u32 lane(u32 t) { return 16 * t; }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return 64 * t + 16 * s; }
    __device__ __forceinline__ void begin(const Span<IQ2_XXS> &at, u32 rows, u32 t) {
        q = at.chunk(rows, 0);
        uint2 scales = staged8(at.scales_of(rows));
        // What is added to the digits of a power of two is 4 n: it is the one whose steps are as large where n lies; two
        // less than the power is taken away.
        sizes = pair_sub((__byte_perm(scales.x, 0, 0x4040 + t * 0x0101) & 0x00f0000fu) | 0x5c006c00u, 0x5bf06bffu), unit = scales.y;
    }
    __device__ __forceinline__ void fetch(const Span<IQ2_XXS> &, u32, u32) {}
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *table, u32 s, u32, u32 (&w)[8]) const {
        u32 size = s < 2 ? twice<0>(sizes) : twice<1>(sizes), column = column_of(table);
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            u32 eight = s % 2 * 2 + i, from = eight < 3 ? 2 - eight : 3;
            uint4 magnitudes = shared16(entry_of<sizeof(Iq2Table::eights[0])>(s < 2 ? q.x : q.z, eight, column));
#pragma unroll
            for (u32 k = 0; k < 4; k++) w[4 * i + k] = pair_mul(word(magnitudes, k), size) ^ ((s < 2 ? q.y : q.w) << (15 - from - 4 * k) & 0x80008000u);
        }
    }
};

// The minima are multiplied with sums of the vectors.
template <> struct Codes<WHOLE_Q2_K> {
    uint4 q;
    u32 first, second, scales; // the last: of the scales, and of the minima
    __device__ __forceinline__ static u32 lane(u32 t) { return Codes<Q2_K>::lane(t); }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return Codes<Q2_K>::start(s, t); }
    __device__ __forceinline__ void begin(const Span<WHOLE_Q2_K> &at, u32 rows, u32 t) {
        q = at.chunk(rows, 0);
        u32 meta = at.scales_of(rows);
        first = staged4(meta + t / 2 * 8), second = staged4(meta + t / 2 * 8 + 4), scales = staged4(meta + 16);
    }
    __device__ __forceinline__ void fetch(const Span<WHOLE_Q2_K> &, u32, u32) {}
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *, u32 s, u32 t, u32 (&w)[8]) const {
        u32 scale = pair_sub(__byte_perm(s < 2 ? first : second, 0x64646464u, 0x4040 + (s % 2 * 2 + t % 2) * 0x0101) & 0xff0fff0fu, 0x64006400u);
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            u32 two = word(q, i / 2) >> i % 2 * 8;
            u32 number = s == 0 ? number_at<0, 3>(two) : s == 1 ? number_at<2, 3>(two) : s == 2 ? number_at<4, 3>(two) : number_at<6, 3>(two);
            w[i] = pair_mul(number, scale);
        }
    }
    // Those of four times 16 columns, from 64 t on.
    __device__ __forceinline__ u32 minima() const { return (threadIdx.x % 2 ? second : first) >> 4 & 0x0f0f0f0fu; }
};

// What a block of Q2_K adds to a value, but for the vector's unit: from its sums and the row's scales, of which the second
// is that of minima.
__device__ __forceinline__ float q2_value(float sum, float of_minima, u32 scales) {
    return __fmaf_rn(-f16_to_f32((u16)(scales >> 16)), of_minima, __fmul_rn(f16_to_f32((u16)scales), sum));
}

// What 16 rows' sums of a block are scaled with. `add` does it for eight vectors, whose units are `unit`, of those two
// that a lane has sums of; `sums`: a quarter of those that the vector number g has for minima.
template <int F> struct BlockScales;

template <> struct BlockScales<IQ2_XXS> {
    u32 above, below;
    __device__ __forceinline__ BlockScales(const Codes<IQ2_XXS> &a, const Codes<IQ2_XXS> &b) : above(a.unit), below(b.unit) {}
    __device__ __forceinline__ void add(float *total, const float (&sum)[4], float2 unit, uint2) const {
#pragma unroll
        for (u32 j = 0; j < 4; j++) total[j] = __fmaf_rn(__fmul_rn(sum[j], f16_to_f32((u16)(j < 2 ? above : below))), j % 2 ? unit.y : unit.x, total[j]);
    }
};

template <> struct BlockScales<WHOLE_Q2_K> {
    u32 above, below, minima_above, minima_below;
    __device__ __forceinline__ BlockScales(const Codes<WHOLE_Q2_K> &a, const Codes<WHOLE_Q2_K> &b) : above(a.scales), below(b.scales), minima_above(a.minima()), minima_below(b.minima()) {}
    __device__ __forceinline__ void add(float *total, const float (&sum)[4], float2 unit, uint2 sums) const {
        float of_minima[4] = {};
        mma(of_minima, pair<0>(minima_above), pair<0>(minima_below), pair<1>(minima_above), pair<1>(minima_below), sums.x, sums.y);
#pragma unroll
        for (u32 j = 0; j < 4; j++) total[j] = __fmaf_rn(q2_value(sum[j], of_minima[j], j < 2 ? above : below), j % 2 ? unit.y : unit.x, total[j]);
    }
    template <int WHICH> __device__ __forceinline__ static u32 pair(u32 four) { return pair_sub(bytes_above_1024<WHICH>(four), 0x64006400u); }
};
