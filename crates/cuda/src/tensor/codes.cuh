// Weights as the tensor cores want them. A lane holds, for one row, a quarter of 256 columns: four runs
// of 16 neighbours. Which columns make a run is a format's own affair, chosen so that what a lane reads
// is what it decodes; the activations are looked up to match. Tiles wait in shared memory: `begin` reads
// what all runs need, `fetch` the rest of one, where a run has so many bytes that not all may fit into
// registers; `run` decodes one into eight pairs.
//
// What comes out is the weight times a power of two that keeps the digits of small weights: 16, for E2M1
// codes a 16th, for halves themselves 1. `unscale` takes it out again.

// What scales the blocks of a row, where that does not lie in tiles.
__device__ __forceinline__ const u8 *scales_of_128(const Matrix &m, u32 row) { return m.scales + (u64)(row / 128) * ((m.cols + 127) / 128); }

__device__ __forceinline__ u32 word(uint4 v, u32 i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

struct Iq2Table;

__device__ __forceinline__ uint4 shared16(u32 at) {
    uint4 v;
    asm("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
    return v;
}

__device__ __forceinline__ u32 shared4(u32 at) {
    u32 v;
    asm("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
    return v;
}

// Where in a table, of so many bytes to an entry, the entry is that one of a word's bytes names: the byte is multiplied
// with the size, and the others with nothing.
template <u32 BYTES> __device__ __forceinline__ u32 entry_of(u32 four, u32 which, u32 table) {
    u32 at;
    asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(at) : "r"(four), "r"(BYTES << which * 8), "r"(table));
    return at;
}

// ------------------------------------------------------------------ tiles in shared memory

// Reads what copies, which the compiler knows nothing of, have brought there.
__device__ __forceinline__ uint4 staged16(u32 at) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
    return v;
}

__device__ __forceinline__ uint2 staged8(u32 at) {
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
    return v;
}

__device__ __forceinline__ u32 staged4(u32 at) {
    u32 v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
    return v;
}

__device__ __forceinline__ u32 staged2(u32 at) {
    u16 v;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(at));
    return v;
}

__device__ __forceinline__ u32 staged1(u32 at) {
    u32 v;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(v) : "r"(at));
    return v;
}

// As `staged16`, or `staged4`, for those lanes that need it; the others keep what they have.
__device__ __forceinline__ void staged16_if(uint4 &v, u32 at, bool needed) {
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p ld.shared.v4.u32 {%0, %1, %2, %3}, [%4]; }"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w) : "r"(at), "r"((u32)needed));
}

__device__ __forceinline__ void staged4_if(u32 &v, u32 at, bool needed) {
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.shared.u32 %0, [%1]; }" : "+r"(v) : "r"(at), "r"((u32)needed));
}

// What a lane reads of a row, and of those a multiple of two rows further on. Whether a chunk has traded its
// place follows from where it would lie, which is known when the kernel is compiled, and from the row, which is
// not: so there are two beginnings to count from.
template <int F> struct Span {
    u32 codes, traded, scales;
    const u8 *beside; // where scales do not lie in tiles: those of the block
    // `lane`: where the lane's first chunk would lie.
    __device__ __forceinline__ Span(u32 codes_at, u32 scales_at, u32 row, u32 lane, const u8 *beside) : scales(scales_at + row * Widths<F>::scales), beside(beside) {
        u32 swap = row % 2 * Widths<F>::swap, begin = codes_at + row * Widths<F>::codes + lane;
        codes = begin + swap, traded = begin - swap;
    }
    __device__ __forceinline__ Span further(u32 bytes) const {
        Span span = *this;
        span.codes += bytes, span.traded += bytes, span.scales += bytes;
        return span;
    }
    __device__ __forceinline__ uint4 chunk(u32 rows, u32 at) const { return staged16((at & Widths<F>::swap ? traded : codes) + rows * Widths<F>::codes + at); }
    __device__ __forceinline__ u32 scales_of(u32 rows) const { return scales + rows * Widths<F>::scales; }
};

// One of a pair of halves twice: the assembler makes this part of the instruction that uses it.
template <u32 WHICH> __device__ __forceinline__ u32 twice(u32 pair) {
    u32 two;
    if (WHICH == 0)
        asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {low, low}; }" : "=r"(two) : "r"(pair));
    else
        asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {high, high}; }" : "=r"(two) : "r"(pair));
    return two;
}

// A number below 1024 as a half, twice.
__device__ __forceinline__ u32 small_pair(u32 n) { return pair_sub(__byte_perm(n | 0x6400u, 0, 0x1010), 0x64006400u); }

// Numbers as halves that lie in either half of a word from bit AT on, below the tenth. With its digits there, a
// power of two is that much larger. The compiler would cut them out with two instructions.
template <u32 AT, u32 MASK> __device__ __forceinline__ u32 number_at(u32 v) {
    const u32 power = (0x6400u - AT * 0x400u) * 0x00010001u;
    u32 above;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(above) : "r"(v), "r"(MASK * 0x00010001u << AT), "r"(power));
    return pair_sub(above, power);
}

// The formats without a decoder of their own go by way of floats.
static const int OTHER = -1;

__device__ __noinline__ void run_by_floats(const Matrix &m, u32 row, u32 column, u32 (&w)[8]) {
    for (u32 i = 0; i < 4; i++, column += 4) {
        float4 v;
#define BODY(F) v = weight4<F>(m, row, column)
        FOR_FORMAT(m.format, BODY)
#undef BODY
        w[2 * i] = pair_of(16.0f * v.x, 16.0f * v.y);
        w[2 * i + 1] = pair_of(16.0f * v.z, 16.0f * v.w);
    }
}

// `begin` and `fetch` get the lane's span and how many rows further on their row lies.
template <int F> struct Codes {
    u32 row, block;
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return 64 * s + 16 * t; }
    __device__ __forceinline__ void run(const Matrix &m, const Iq2Table *, u32 s, u32 t, u32 (&w)[8]) const {
        run_by_floats(m, row, 256 * block + start(s, t), w);
    }
};

template <> struct Widths<OTHER> { static const u32 codes = 0, scales = 0, swap = 0; };

template <> struct Codes<F16> {
    uint4 q[8];
    __device__ __forceinline__ static u32 lane(u32 t) { return 32 * t; }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return 64 * s + 16 * t; }
    __device__ __forceinline__ void begin(const Span<F16> &, u32, u32) {}
    __device__ __forceinline__ void fetch(const Span<F16> &at, u32 rows, u32 s) {
        q[2 * s] = at.chunk(rows, 128 * s), q[2 * s + 1] = at.chunk(rows, 128 * s + 16);
    }
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *, u32 s, u32, u32 (&w)[8]) const {
#pragma unroll
        for (u32 i = 0; i < 8; i++) w[i] = word(q[2 * s + i / 4], i % 4);
    }
};

template <> struct Codes<Q8_0> {
    uint4 q[4], scales;
    __device__ __forceinline__ static u32 lane(u32 t) { return 16 * t; }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return 64 * s + 16 * t; }
    __device__ __forceinline__ void begin(const Span<Q8_0> &at, u32 rows, u32) { scales = staged16(at.scales_of(rows)); }
    __device__ __forceinline__ void fetch(const Span<Q8_0> &at, u32 rows, u32 s) { q[s] = at.chunk(rows, 64 * s); }
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *, u32 s, u32 t, u32 (&w)[8]) const {
        decode(q[s], pair_mul(__byte_perm(word(scales, s), 0, t & 2 ? 0x3232 : 0x1010), SIXTEEN), w);
    }
    // `scale`: 16 times the run's, twice.
    __device__ __forceinline__ static void decode(uint4 run, u32 scale, u32 (&w)[8], u32 from_1024 = FROM_1024) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 four = word(run, i); // 128 more
            w[2 * i] = pair_mul(pair_sub(bytes_above_1024<0>(four, from_1024), 0x64806480u), scale);
            w[2 * i + 1] = pair_mul(pair_sub(bytes_above_1024<1>(four, from_1024), 0x64806480u), scale);
        }
    }
};

template <> struct Codes<FP8> {
    uint4 q[4];
    u32 scales;
    __device__ __forceinline__ static u32 lane(u32 t) { return 16 * t; }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return 64 * s + 16 * t; }
    __device__ __forceinline__ void begin(const Span<FP8> &at, u32 rows, u32) { scales = at.beside[0] | at.beside[1] << 8; }
    __device__ __forceinline__ void fetch(const Span<FP8> &at, u32 rows, u32 s) { q[s] = at.chunk(rows, 64 * s); }
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *, u32 s, u32, u32 (&w)[8]) const {
        // A code's fields, moved to where a half has them, are its value over 2^8.
        u32 scale = e8m0_power(scales >> (s / 2 * 8) & 255, 8 + 4);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 four = word(q[s], i), low = bytes_on_top<0>(four), high = bytes_on_top<1>(four);
            w[2 * i] = pair_mul((low & 0x80008000u) | (low >> 1 & 0x3f803f80u), scale);
            w[2 * i + 1] = pair_mul((high & 0x80008000u) | (high >> 1 & 0x3f803f80u), scale);
        }
    }
};

// Two blocks of 32 with 16 bytes each, the first half of the values in the low nibbles.
template <> struct Codes<MXFP4> {
    uint4 q[2];
    u32 scales;
    __device__ __forceinline__ static u32 lane(u32 t) { return 32 * t; }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return 64 * t + 16 * s; }
    __device__ __forceinline__ void begin(const Span<MXFP4> &at, u32 rows, u32 t) {
        q[0] = at.chunk(rows, 0), q[1] = at.chunk(rows, 16);
        scales = staged2(at.scales_of(rows) + 2 * t);
    }
    __device__ __forceinline__ void fetch(const Span<MXFP4> &, u32, u32) {}
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *, u32 s, u32, u32 (&w)[8]) const {
        // A code's fields, moved to where a half has them, are its value over 2^14.
        u32 scale = e8m0_power(scales >> (s / 2 * 8) & 255, 14 - 4);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 four = word(q[s / 2], i);
            u32 tops = s % 2 ? (four & 0x80808080u) | (four >> 3 & 0x0e0e0e0eu) : (four << 4 & 0x80808080u) | (four << 1 & 0x0e0e0e0eu);
            w[2 * i] = pair_mul(bytes_on_top<0>(tops), scale);
            w[2 * i + 1] = pair_mul(bytes_on_top<1>(tops), scale);
        }
    }
};

// Neighbours in one byte, the first in the low nibble.
template <> struct Codes<FP4> {
    uint4 q[2];
    u32 scales;
    __device__ __forceinline__ static u32 lane(u32 t) { return 32 * t; }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return 64 * t + 16 * s; }
    __device__ __forceinline__ void begin(const Span<FP4> &at, u32 rows, u32 t) {
        q[0] = at.chunk(rows, 0), q[1] = at.chunk(rows, 16);
        scales = staged2(at.scales_of(rows) + 2 * t);
    }
    __device__ __forceinline__ void fetch(const Span<FP4> &, u32, u32) {}
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *, u32 s, u32, u32 (&w)[8]) const {
        u32 scale = e8m0_power(scales >> (s / 2 * 8) & 255, 14 - 4);
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            u32 eight = word(q[s / 2], s % 2 * 2 + i);
            u32 even = (eight << 4 & 0x80808080u) | (eight << 1 & 0x0e0e0e0eu);
            u32 odd = (eight & 0x80808080u) | (eight >> 3 & 0x0e0e0e0eu);
            w[4 * i] = pair_mul(__byte_perm(even, odd, 0x4000) & 0xff00ff00u, scale);
            w[4 * i + 1] = pair_mul(__byte_perm(even, odd, 0x5010) & 0xff00ff00u, scale);
            w[4 * i + 2] = pair_mul(__byte_perm(even, odd, 0x6020) & 0xff00ff00u, scale);
            w[4 * i + 3] = pair_mul(__byte_perm(even, odd, 0x7030) & 0xff00ff00u, scale);
        }
    }
};

template <> struct Codes<Q2_K> {
    uint4 q;
    u32 first, second, sizes; // 16 times the scale of scales, and -16 times that of minima
    __device__ __forceinline__ static u32 lane(u32 t) { return 16 * t; }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return t / 2 * 128 + 32 * s + 16 * (t % 2); }
    __device__ __forceinline__ void begin(const Span<Q2_K> &at, u32 rows, u32 t) {
        q = at.chunk(rows, 0);
        u32 meta = at.scales_of(rows);
        first = staged4(meta + t / 2 * 8), second = staged4(meta + t / 2 * 8 + 4);
        sizes = pair_mul(staged4(meta + 16), SIXTEEN ^ 0x80000000u);
    }
    __device__ __forceinline__ void fetch(const Span<Q2_K> &, u32, u32) {}
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *, u32 s, u32 t, u32 (&w)[8]) const {
        // The run's two numbers of four bits as halves 1024 + n and 1024 + 16 m, from which n and m follow without an error.
        u32 code = __byte_perm(s < 2 ? first : second, 0x64646464u, 0x4040 + (s % 2 * 2 + t % 2) * 0x0101) & 0xfff0ff0fu;
        u32 scaled = pair_mul(pair_fma(code, 0x2c003c00u, 0xd400e400u), sizes);
        u32 times = __byte_perm(scaled, 0, 0x1010), less = __byte_perm(scaled, 0, 0x3232);
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            // Of four weights the first two lie in the even bytes, the others in the odd ones.
            u32 two = word(q, i / 2) >> i % 2 * 8;
            u32 number = s == 0 ? number_at<0, 3>(two) : s == 1 ? number_at<2, 3>(two) : s == 2 ? number_at<4, 3>(two) : number_at<6, 3>(two);
            w[i] = pair_fma(number, times, less);
        }
    }
};

template <> struct Codes<Q4_K> {
    uint4 q[2], meta;
    __device__ __forceinline__ static u32 lane(u32 t) { return 32 * t; }
    __device__ __forceinline__ static u32 start(u32 s, u32 t) { return 64 * t + 32 * (s % 2) + 16 * (s / 2); }
    __device__ __forceinline__ void begin(const Span<Q4_K> &at, u32 rows, u32 t) {
        q[0] = at.chunk(rows, 0), q[1] = at.chunk(rows, 16);
        meta = staged16(at.scales_of(rows));
    }
    __device__ __forceinline__ void fetch(const Span<Q4_K> &, u32, u32) {}
    __device__ __forceinline__ void run(const Matrix &, const Iq2Table *, u32 s, u32 t, u32 (&w)[8]) const {
        // Six bits each: of the first four sub-blocks whole, of the others four and two.
        u32 j = 2 * t + s % 2, shift = j % 4 * 8;
        u32 a = meta.y >> shift, b = meta.z >> shift, c = meta.w >> shift;
        u32 scale = j < 4 ? a & 63 : (c & 15) | (a >> 2 & 48);
        u32 minimum = j < 4 ? b & 63 : (c >> 4 & 15) | (b >> 2 & 48);
        u32 times = pair_mul(pair_mul(__byte_perm(meta.x, 0, 0x1010), SIXTEEN), small_pair(scale));
        u32 less = pair_mul(pair_mul(__byte_perm(meta.x, 0, 0x3232), SIXTEEN ^ 0x80008000u), small_pair(minimum));
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 four = word(q[s / 2], i) >> (s % 2 * 4) & 0x0f0f0f0fu;
            w[2 * i] = pair_fma(pair_sub(bytes_above_1024<0>(four), 0x64006400u), times, less);
            w[2 * i + 1] = pair_fma(pair_sub(bytes_above_1024<1>(four), 0x64006400u), times, less);
        }
    }
};

// What sums of products with decoded weights are multiplied with in the end.
__device__ __forceinline__ float unscale(u32 format) { return format == F16 || format == WHOLE_Q2_K ? 1.0f : format == MXFP4 || format == FP4 ? 16.0f : 0.0625f; }

// Calls `BODY(F)` with the format as a constant, where it has a decoder of its own. IQ2_XXS is for experts alone.
#define FOR_CODES(format, BODY)            \
    switch (format) {                      \
    case F16: BODY(F16); break;            \
    case Q8_0: BODY(Q8_0); break;          \
    case Q2_K: BODY(Q2_K); break;          \
    case Q4_K: BODY(Q4_K); break;          \
    case MXFP4: BODY(MXFP4); break;        \
    case FP8: BODY(FP8); break;            \
    case FP4: BODY(FP4); break;            \
    default: BODY(OTHER); break;           \
    }

// The same where `F` may be the format.
#define FOR_CODES_OF(F, format, BODY)      \
    if constexpr (F != ANY) {              \
        BODY(F)                            \
    } else {                               \
        FOR_CODES(format, BODY)            \
    }
