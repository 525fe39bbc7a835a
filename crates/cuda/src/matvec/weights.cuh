// Weights as they lie on the card: in tiles, or the codes of a matrix in one plane and what scales them in
// another. `upload` says which bytes of a block go where; `ds4_quant` says what they mean.

enum Format { F32, F16, BF16, Q8_0, Q4_0, Q2_K, Q4_K, Q5_K, Q6_K, IQ2_XXS, MXFP4, FP8, FP4 };

struct Matrix {
    const u8 *codes;
    const u8 *scales; // where they do not lie in tiles
    u32 format;
    u32 rows;
    u32 cols;
    u32 tiled; // 1: in tiles, see below; 0: row after row
};

// Bytes of codes, and of scales, of 256 columns; and by how much chunks trade places.
//
// A matrix of one of these formats with a multiple of 256 columns lies in tiles of 16 rows, a strip, by a block
// of 256 columns, so that a warp asks for all of one in a line; the tiles of a strip follow one another. First
// come a tile's codes, row after row, then its scales. In odd rows chunks of codes trade places, so that rows that
// are read together from shared memory have different banks. The last strip has memory for all of its 16 rows.
// (The scales of FP8 lie elsewhere.)
template <int F> struct Widths;
template <> struct Widths<F16> { static const u32 codes = 512, scales = 0, swap = 16; };
template <> struct Widths<Q8_0> { static const u32 codes = 256, scales = 16, swap = 64; };
template <> struct Widths<FP8> { static const u32 codes = 256, scales = 0, swap = 64; };
template <> struct Widths<MXFP4> { static const u32 codes = 128, scales = 8, swap = 16; };
template <> struct Widths<FP4> { static const u32 codes = 128, scales = 8, swap = 16; };
template <> struct Widths<IQ2_XXS> { static const u32 codes = 64, scales = 8, swap = 0; };
template <> struct Widths<Q2_K> { static const u32 codes = 64, scales = 20, swap = 0; };
template <> struct Widths<Q4_K> { static const u32 codes = 128, scales = 16, swap = 16; };

// Q2_K where it is multiplied as whole numbers.
static const int WHOLE_Q2_K = 64;
template <> struct Widths<WHOLE_Q2_K> : Widths<Q2_K> {};

template <int F> constexpr u32 TILE_BYTES = 16 * (Widths<F>::codes + Widths<F>::scales);

// A row's block of 256 columns.
template <int F> struct Tiled {
    const u8 *codes, *scales;
    u32 swap;
    __device__ __forceinline__ Tiled(const Matrix &m, u32 row, u32 block) {
        const u8 *tile = m.codes + ((u64)(row / 16) * (m.cols / 256) + block) * TILE_BYTES<F>;
        codes = tile + row % 16 * Widths<F>::codes, scales = tile + 16 * Widths<F>::codes + row % 16 * Widths<F>::scales, swap = row % 2 * Widths<F>::swap;
    }
    // Four bytes of codes.
    __device__ __forceinline__ u32 word(u32 at) const { return __ldg((const u32 *)(codes + (at ^ swap))); }
};

// Matrices of one shape and format, one behind the other.
struct Stack {
    Matrix first;
    u64 codes_stride;
    u64 scales_stride;
};

__device__ __forceinline__ Matrix member(const Stack &s, u32 i) {
    Matrix m = s.first;
    m.codes += s.codes_stride * i;
    m.scales += s.scales_stride * i;
    return m;
}

// The magnitudes of IQ2_XXS, eight to an index; filled when the kernels are loaded.
extern "C" {
__device__ u64 IQ2_XXS_GRID[256];
}

// Which bit of a group's word is the sign of its weight `i`: of each eight every fourth, so that one shift brings all
// of them to where `prmt` chooses between two registers, and those of weights k and k + 4 to the tops of two halves.
__device__ __forceinline__ u32 iq2_sign(u32 i) { return i % 8 * 4 + (i < 24 ? 2 - i / 8 : 3); }

__device__ __forceinline__ float half_at(const u8 *p) { return f16_to_f32(*(const u16 *)p); }

// Scale and minimum of sub-block `j` of Q4_K and Q5_K: six bits each, the last four spread out.
__device__ __forceinline__ void scale_and_min(const u8 *meta, u32 j, float &scale, float &min) {
    const u8 *s = meta + 4;
    u32 a, b;
    if (j < 4) {
        a = s[j] & 63;
        b = s[j + 4] & 63;
    } else {
        a = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        b = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
    scale = half_at(meta) * (float)a;
    min = half_at(meta + 2) * (float)b;
}

__device__ __forceinline__ float4 bytes_to_float4(u32 q) {
    return make_float4((float)(q & 255), (float)(q >> 8 & 255), (float)(q >> 16 & 255), (float)(q >> 24));
}

__device__ __forceinline__ float4 scaled(float4 q, float scale, float min) {
    return make_float4(q.x * scale - min, q.y * scale - min, q.z * scale - min, q.w * scale - min);
}

// Four neighbouring weights of a row; `c` is a multiple of four.
template <int F> __device__ __forceinline__ float4 weight4(const Matrix &m, u32 row, u32 c) {
    if (F == F32) return __ldg((const float4 *)m.codes + ((u64)row * m.cols + c) / 4);
    const u32 i = c % 256;
    if (F == F16 || F == BF16) {
        uint2 h;
        if (F == F16 && m.tiled) {
            Tiled<F16> of(m, row, c / 256);
            h = __ldg((const uint2 *)(of.codes + (2 * i ^ of.swap)));
        } else {
            h = __ldg((const uint2 *)m.codes + ((u64)row * m.cols + c) / 4);
        }
        if (F == BF16)
            return make_float4(bf16_to_f32((u16)h.x), bf16_to_f32((u16)(h.x >> 16)), bf16_to_f32((u16)h.y), bf16_to_f32((u16)(h.y >> 16)));
        return make_float4(f16_to_f32((u16)h.x), f16_to_f32((u16)(h.x >> 16)), f16_to_f32((u16)h.y), f16_to_f32((u16)(h.y >> 16)));
    }
    if (F == Q8_0) {
        u32 q;
        float d;
        if (m.tiled) {
            // Codes in tiles are 128 more.
            Tiled<Q8_0> of(m, row, c / 256);
            q = of.word(i) ^ 0x80808080u, d = half_at(of.scales + i / 32 * 2);
        } else {
            q = __ldg((const u32 *)m.codes + ((u64)row * m.cols + c) / 4), d = half_at(m.scales + ((u64)row * (m.cols / 32) + c / 32) * 2);
        }
        return make_float4(d * (float)(signed char)q, d * (float)(signed char)(q >> 8), d * (float)(signed char)(q >> 16), d * (float)(signed char)(q >> 24));
    }
    if (F == MXFP4) {
        u64 block = (u64)row * (m.cols / 32) + c / 32;
        u32 at = c % 16, q;
        const u8 *scale = m.scales + block;
        if (m.tiled) {
            Tiled<MXFP4> of(m, row, c / 256);
            q = of.word(i / 32 * 16 + at), scale = of.scales + i / 32;
        } else {
            q = __ldg((const u32 *)(m.codes + block * 16 + at));
        }
        q >>= c % 32 / 16 * 4;
        float d = e8m0_to_f32(*scale);
        return make_float4(e2m1_to_f32(q) * d, e2m1_to_f32(q >> 8) * d, e2m1_to_f32(q >> 16) * d, e2m1_to_f32(q >> 24) * d);
    }
    if (F == Q4_0) {
        u64 block = (u64)row * (m.cols / 32) + c / 32;
        u32 q = __ldg((const u32 *)(m.codes + block * 16 + c % 16)) >> (c % 32 / 16 * 4);
        float d = half_at(m.scales + block * 2);
        return scaled(bytes_to_float4(q & 0x0f0f0f0fu), d, 8.0f * d);
    }
    if (F == FP4) {
        u32 q;
        const u8 *scale = m.scales + (u64)row * ((m.cols + 31) / 32) + c / 32;
        if (m.tiled) {
            Tiled<FP4> of(m, row, c / 256);
            q = __ldg((const u16 *)(of.codes + (i / 2 ^ of.swap))), scale = of.scales + i / 32;
        } else {
            q = __ldg((const u16 *)m.codes + ((u64)row * m.cols + c) / 4);
        }
        float d = e8m0_to_f32(*scale);
        return make_float4(e2m1_to_f32(q) * d, e2m1_to_f32(q >> 4) * d, e2m1_to_f32(q >> 8) * d, e2m1_to_f32(q >> 12) * d);
    }
    if (F == FP8) {
        u32 q = m.tiled ? Tiled<FP8>(m, row, c / 256).word(i) : __ldg((const u32 *)m.codes + ((u64)row * m.cols + c) / 4);
        float d = e8m0_to_f32(m.scales[(u64)(row / 128) * ((m.cols + 127) / 128) + c / 128]);
        return make_float4(e4m3_to_f32(q & 255) * d, e4m3_to_f32(q >> 8 & 255) * d, e4m3_to_f32(q >> 16 & 255) * d, e4m3_to_f32(q >> 24) * d);
    }
    if (F == Q2_K) {
        Tiled<Q2_K> of(m, row, c / 256);
        u32 q = of.word(i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2);
        const u8 *meta = of.scales;
        u32 s = meta[i / 16];
        // In tiles the two in the middle have traded places.
        return scaled(bytes_to_float4(__byte_perm(q, 0, 0x3120) & 0x03030303u), half_at(meta + 16) * (float)(s & 15), half_at(meta + 18) * (float)(s >> 4));
    }
    if (F == Q4_K) {
        Tiled<Q4_K> of(m, row, c / 256);
        u32 q = of.word(i / 64 * 32 + i % 32) >> (i / 32 % 2 * 4);
        float scale, min;
        scale_and_min(of.scales, i / 32, scale, min);
        return scaled(bytes_to_float4(q & 0x0f0f0f0fu), scale, min);
    }
    u64 block = (u64)row * (m.cols / 256) + c / 256;
    if (F == Q5_K) {
        const u8 *codes = m.codes + block * 160;
        u32 fifth = __ldg((const u32 *)(codes + i % 32)) >> (i / 32) & 0x01010101u;
        u32 q = __ldg((const u32 *)(codes + 32 + i / 64 * 32 + i % 32)) >> (i / 32 % 2 * 4) & 0x0f0f0f0fu;
        float scale, min;
        scale_and_min(m.scales + block * 16, i / 32, scale, min);
        return scaled(bytes_to_float4(q | fifth << 4), scale, min);
    }
    if (F == Q6_K) {
        const u8 *codes = m.codes + block * 192;
        u32 half = i / 128, run = i % 128 / 32;
        u32 low = __ldg((const u32 *)(codes + (2 * half + run % 2) * 32 + i % 32)) >> (run / 2 * 4) & 0x0f0f0f0fu;
        u32 high = __ldg((const u32 *)(codes + 128 + half * 32 + i % 32)) >> (2 * run) & 0x03030303u;
        const u8 *meta = m.scales + block * 18;
        float scale = half_at(meta + 16) * (float)(signed char)meta[i / 16];
        return scaled(bytes_to_float4(low | high << 4), scale, 32.0f * scale);
    }
    // IQ2_XXS, as `split_iq2` has left it.
    Tiled<IQ2_XXS> of(m, row, c / 256);
    uint2 group = __ldg((const uint2 *)of.codes + i / 32), sizes = __ldg((const uint2 *)of.scales);
    u32 magnitudes = (u32)(__ldg(&IQ2_XXS_GRID[group.x >> (i % 32 / 8 * 8) & 255]) >> (i % 8 * 8));
    u32 signs = group.y >> iq2_sign(i % 32);
    float scale = f16_to_f32((u16)sizes.y) * ((float)(sizes.x >> (i / 32 * 4) & 15) + 0.5f) * 0.25f;
    float4 v = scaled(bytes_to_float4(magnitudes), scale, 0.0f);
    return make_float4(signs & 1 ? -v.x : v.x, signs & 16 ? -v.y : v.y, signs & 256 ? -v.z : v.z, signs & 4096 ? -v.w : v.w);
}

// Calls `BODY(F)` with the matrix's format as a constant.
#define FOR_FORMAT(format, BODY)           \
    switch (format) {                      \
    case F32: BODY(F32); break;            \
    case F16: BODY(F16); break;            \
    case BF16: BODY(BF16); break;          \
    case Q8_0: BODY(Q8_0); break;          \
    case Q4_0: BODY(Q4_0); break;          \
    case Q2_K: BODY(Q2_K); break;          \
    case Q4_K: BODY(Q4_K); break;          \
    case Q5_K: BODY(Q5_K); break;          \
    case Q6_K: BODY(Q6_K); break;          \
    case IQ2_XXS: BODY(IQ2_XXS); break;    \
    case MXFP4: BODY(MXFP4); break;        \
    case FP8: BODY(FP8); break;            \
    default: BODY(FP4); break;             \
    }

__device__ __forceinline__ void add_product(float4 &sum, float4 w, float4 x) {
    sum.x += w.x * x.x;
    sum.y += w.y * x.y;
    sum.z += w.z * x.z;
    sum.w += w.w * x.w;
}

// Eight neighbouring halves as floats.
template <int F> __device__ __forceinline__ void halves8(uint4 h, float4 &a, float4 &b) {
    u32 q[4] = {h.x, h.y, h.z, h.w};
    float v[8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u16 low = (u16)q[i], high = (u16)(q[i] >> 16);
        v[2 * i] = F == F16 ? f16_to_f32(low) : bf16_to_f32(low);
        v[2 * i + 1] = F == F16 ? f16_to_f32(high) : bf16_to_f32(high);
    }
    a = make_float4(v[0], v[1], v[2], v[3]);
    b = make_float4(v[4], v[5], v[6], v[7]);
}

// A lane's share of the product of one row with `T` vectors: columns 4 * lane, then every 128th.
// The order of a sum depends on the columns alone, not on `T`.
template <int F, int T>
__device__ __forceinline__ void lane_dots(const Matrix &m, u32 row, const float *const (&x)[T], float4 (&sum)[T]) {
    u32 lane = threadIdx.x % 32;
    if ((F == F16 || F == BF16) && m.cols % 8 == 0) {
#pragma unroll 4
        for (u32 c = 8 * lane; c < m.cols; c += 256) {
            float4 v, w;
            const u8 *at = m.codes + 2 * ((u64)row * m.cols + c);
            if (F == F16 && m.tiled) {
                Tiled<F16> of(m, row, c / 256);
                at = of.codes + (2 * (c % 256) ^ of.swap);
            }
            halves8<F>(__ldcs((const uint4 *)at), v, w);
#pragma unroll
            for (int t = 0; t < T; t++) {
                add_product(sum[t], v, *(const float4 *)(x[t] + c));
                add_product(sum[t], w, *(const float4 *)(x[t] + c + 4));
            }
        }
        return;
    }
#pragma unroll 4
    for (u32 c = 4 * lane; c < m.cols; c += 128) {
        float4 w = weight4<F>(m, row, c);
#pragma unroll
        for (int t = 0; t < T; t++) add_product(sum[t], w, *(const float4 *)(x[t] + c));
    }
}

__device__ __forceinline__ float dot_total(float4 s) { return warp_sum((s.x + s.y) + (s.z + s.w)); }
