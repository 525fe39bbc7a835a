// Half-precision numbers in pairs, and the tensor cores' product of them.

// 16 as a pair of halves.
static const u32 SIXTEEN = 0x4c004c00u;

__device__ __forceinline__ u32 pair_of(float low, float high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ u16 half_of(float x) { return (u16)pair_of(x, x); }

__device__ __forceinline__ u32 both(float x) { return pair_of(x, x); }

// With the rounding said, the compiler may not fuse what is written apart.
__device__ __forceinline__ u32 pair_sub(u32 a, u32 b) {
    u32 d;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

__device__ __forceinline__ u32 pair_mul(u32 a, u32 b) {
    u32 d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

__device__ __forceinline__ u32 pair_fma(u32 a, u32 b, u32 c) {
    u32 d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// The upper bytes of halves from 1024 on.
static const u32 FROM_1024 = 0x64646464u;

// Two of four bytes as a pair of halves 1024 + byte.
template <int WHICH> __device__ __forceinline__ u32 bytes_above_1024(u32 four, u32 from_1024 = FROM_1024) {
    return __byte_perm(four, from_1024, WHICH ? 0x4342 : 0x4140);
}

// Two of four bytes as the upper bytes of a pair.
template <int WHICH> __device__ __forceinline__ u32 bytes_on_top(u32 four) {
    return __byte_perm(four, 0, WHICH ? 0x3424 : 0x1404);
}

// Two to a whole power as a half, in both places.
__device__ __forceinline__ u32 power(int exponent) {
    u32 half = exponent > 15 ? 0x7c00u : exponent >= -14 ? (u32)(exponent + 15) << 10 : exponent >= -24 ? 1u << (exponent + 24) : 0u;
    return half * 0x00010001u;
}

// The power of two that an E8M0 code says, times two to `more`.
__device__ __forceinline__ u32 e8m0_power(u32 code, int more) {
    return code == 255 ? 0x7e007e00u : power((int)code - 127 + more);
}

// 16 x 16 weights times 16 x 8 activations, added to `d`.
__device__ __forceinline__ void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four neighbouring values as halves; `at` is a multiple of four.
__device__ __forceinline__ void store_halves(u16 *halves, u64 at, float4 x) {
    *(uint2 *)(halves + at) = make_uint2(pair_of(x.x, x.y), pair_of(x.z, x.w));
}
