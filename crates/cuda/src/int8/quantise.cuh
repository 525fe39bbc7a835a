// Activations in eight bits: 32 neighbours share a scale, and the sums of 16 are kept for formats whose
// weights have a minimum.

struct Quantised {
    signed char *codes; // [rows][width]
    float *scales;      // [rows][width / 32]
    int *sums;          // [rows][width / 16]
};

// A warp's 32 neighbouring values, one to a lane; `at` is the place of the first in the whole array.
__device__ __forceinline__ void quantise_warp(const Quantised &q, u64 at, float x) {
    u32 lane = threadIdx.x % 32;
    float largest = warp_max(fabsf(x));
    float scale = largest / 127.0f;
    int code = largest > 0.0f ? __float2int_rn(x * (127.0f / largest)) : 0;
    // What is not a number must not look like one.
    if (!(largest <= 3.40282347e38f)) scale = __uint_as_float(0x7fc00000u);
    int sum = code;
#pragma unroll
    for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(FULL, sum, o);
    q.codes[at + lane] = (signed char)code;
    if (lane == 0) q.scales[at / 32] = scale;
    if (lane % 16 == 0) q.sums[at / 16 + lane / 16] = sum;
}

// Eight lanes hold 32 neighbouring values, four to a lane; all 32 lanes must call it.
__device__ __forceinline__ void quantise_quads(const Quantised &q, u64 at, float4 x) {
    u32 lane = threadIdx.x % 32;
    float largest = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
    bool number = (x.x - x.x) + (x.y - x.y) + (x.z - x.z) + (x.w - x.w) == 0.0f;
#pragma unroll
    for (int o = 4; o; o >>= 1) {
        largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, o));
        number = __shfl_xor_sync(FULL, (int)number, o) && number;
    }
    float scale = number ? largest / 127.0f : __uint_as_float(0x7fc00000u);
    float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    int a = __float2int_rn(x.x * inverse), b = __float2int_rn(x.y * inverse);
    int c = __float2int_rn(x.z * inverse), d = __float2int_rn(x.w * inverse);
    int sum = (a + b) + (c + d);
    sum += __shfl_xor_sync(FULL, sum, 1);
    sum += __shfl_xor_sync(FULL, sum, 2);
    *(u32 *)(q.codes + at) = (a & 255) | (b & 255) << 8 | (c & 255) << 16 | (u32)d << 24;
    if (lane % 8 == 0) q.scales[at / 32] = scale;
    if (lane % 4 == 0) q.sums[at / 16] = sum;
}
