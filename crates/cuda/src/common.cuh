// What every kernel shares: the round's rows, number formats, sums over warps and blocks, packed rows.
// Mirrors of the structures stand on the host, in the file that launches what takes them.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

static const u32 FULL = 0xffffffffu;
#define INFINITE __int_as_float(0x7f800000)
// `Row.want` of a row that gives no logits, `Row.undo` of one that overwrites nothing worth saving.
static const u32 NOWHERE = 0xffffffffu;
// Tokens of a page of compressed rows.
static const u32 PAGE_TOKENS = 1024;

// One row of the round: which slot it extends, and with what.
struct Row {
    u8 *arena;        // the slot's rings
    u8 *const *pages; // the slot's pages of compressed rows
    u32 token;
    u32 position;
    u32 want;      // which row of logits it gives
    u32 undo;      // where the rows that it overwrites are saved
    u32 before;    // how many rows of the round that extend the same slot stand before it,
    u32 after;     // and how many behind it
    u32 unused[2]; // what lies behind the rows is read in sixteens
};

// How attention rows (or index rows) lie in memory.
struct RowFormat {
    u32 plain;    // 1: f32 values; 0: packed codes
    u32 values;   // of a row
    u32 rope;     // trailing values that turn with the position
    u32 bytes;    // of a row
    u32 nope;     // attention, packed: values that are E4M3 codes
    u32 rope_at;  // attention, packed: where the f16 values begin
};

// ------------------------------------------------------------------ order between kernels

// A kernel may start while the one before it still runs. Until it has called `await` it must touch
// nothing but weights; and every thread must call it, or the next kernel could overtake the one before.
__device__ __forceinline__ void await() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// From here on the next kernel may start, as far as there is room.
// Most kernels of one row say so when their own input is there: earlier, the next one's blocks would crowd onto the few
// multiprocessors that are free by then, and it would know less of what is done.
__device__ __forceinline__ void invite() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ __forceinline__ void enter() {
    invite();
    await();
}

// Blocks that all begin at once wait for their input, and do everything once for nothing, in pass 0: then the
// instructions are near in pass 1, when time counts, which else come from far away, a few at a time. For cards from
// 10.0 on the assembler lacks the registers, before 9.0 kernels do not overlap.
__device__ __forceinline__ u32 first_pass(bool at_once) {
#if __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1000
    return at_once ? 0 : 1;
#else
    return 1;
#endif
}

__device__ __forceinline__ u32 first_pass() { return first_pass(gridDim.x * gridDim.y * gridDim.z <= 128); }

// Asks for a line of memory before it is needed.
__device__ __forceinline__ void prefetch(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Blocks that a multiprocessor should hold at a time, on which the registers of a thread depend; and the bounds of
// a kernel that does not say how many. For cards from 10.0 on the assembler needs more registers than it takes.
#if __CUDA_ARCH__ >= 1000
#define RESIDENT(BLOCKS) (BLOCKS > 1 ? BLOCKS - 1 : 1)
#define THREADS(COUNT) __launch_bounds__(COUNT, 1)
#elif __CUDA_ARCH__ < 900
// There is shared memory for two at most.
#define RESIDENT(BLOCKS) (BLOCKS > 2 ? 2 : BLOCKS)
#define THREADS(COUNT) __launch_bounds__(COUNT)
#else
#define RESIDENT(BLOCKS) (BLOCKS)
#define THREADS(COUNT) __launch_bounds__(COUNT)
#endif

// Where something lies within the shared memory, as instructions name it.
__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// The thread, found anew each time: what follows from it would else be kept in registers from one tile
// to the next, and those are dear.
__device__ __forceinline__ u32 thread_anew() {
    u32 thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

// ------------------------------------------------------------------ number formats

__device__ __forceinline__ float f16_to_f32(u16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

__device__ __forceinline__ u16 f32_to_f16(float f) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

__device__ __forceinline__ float bf16_to_f32(u16 h) { return __uint_as_float((u32)h << 16); }

__device__ __forceinline__ float e8m0_to_f32(u32 code) {
    if (code == 0) return __uint_as_float(0x00400000u);
    if (code == 255) return __uint_as_float(0x7fc00000u);
    return __uint_as_float(code << 23);
}

// One over it, without a division.
__device__ __forceinline__ float e8m0_inverse(u32 code) { return e8m0_to_f32(code == 255 ? 255 : 254 - code); }

// The code's fields, moved to where a float has them, are its value but for the bias; a subnormal
// code becomes a subnormal float.
__device__ __forceinline__ float e4m3_to_f32(u32 code) {
    float v = __uint_as_float((code & 0x80u) << 24 | (code & 0x7fu) << 20) * 0x1p120f;
    return (code & 0x7fu) == 0x7fu ? __uint_as_float(0x7fc00000u) : v;
}

__device__ __forceinline__ float e2m1_to_f32(u32 code) {
    return __uint_as_float((code & 8u) << 28 | (code & 7u) << 22) * 0x1p126f;
}

// The nearest code of a small float format, ties to even, as `ds4_quant::minifloat::nearest`: the
// count of steps of the value's binade, plus the codes of the binades below.
template <int MANTISSA, int BIAS> __device__ __forceinline__ u32 nearest_code(float magnitude) {
    int exponent = (int)(__float_as_uint(magnitude) >> 23) - 127;
    exponent = max(exponent, 1 - BIAS);
    float steps = __fmul_rn(magnitude, __uint_as_float((u32)(127 + MANTISSA - exponent) << 23));
    u32 count = __float_as_uint(__fadd_rn(steps, 8388608.0f)) - 0x4b000000u;
    return count + ((u32)(exponent - (1 - BIAS)) << MANTISSA);
}

__device__ __forceinline__ u32 f32_to_e4m3(float x) {
    u32 sign = (__float_as_uint(x) >> 31) << 7;
    if (isnan(x)) return sign | 0x7fu;
    float m = fminf(fabsf(x), 1024.0f);
    return sign | min(nearest_code<3, 7>(m), 0x7eu);
}

__device__ __forceinline__ u32 f32_to_e2m1(float x) {
    u32 sign = (__float_as_uint(x) >> 31) << 3;
    if (isnan(x)) return sign;
    float m = fminf(fabsf(x), 1024.0f);
    return sign | min(nearest_code<1, 1>(m), 7u);
}

// The E8M0 code of the smallest power of two that brings `magnitude` within the largest value of a
// code, whose float bits are `largest`; `floor_code` is the answer for magnitudes up to `floor`.
__device__ __forceinline__ u32 scale_code(float magnitude, u32 largest, float floor, u32 floor_code) {
    u32 bits = __float_as_uint(magnitude);
    if (bits >= 0x7f800000u) return 255;
    if (magnitude <= floor) return floor_code;
    int log2 = (int)(bits >> 23) - (int)(largest >> 23) + ((bits & 0x7fffffu) > (largest & 0x7fffffu));
    return (u32)min(max(log2 + 127, 0), 254);
}

__device__ __forceinline__ u32 kv_scale(float magnitude) {
    return scale_code(magnitude, 0x43e00000u, 1e-4f, 105); // 448; 2^-22
}

__device__ __forceinline__ u32 fp4_scale(float magnitude) {
    return scale_code(magnitude, 0x40c00000u, 6.0f * 0x1p-126f, 1); // 6; 2^-126
}

// ------------------------------------------------------------------ sums

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(FULL, x, o);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int o = 16; o; o >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL, x, o));
    return x;
}

// The largest magnitude of a warp, infinite if one is NaN: magnitudes are ordered as their bits.
__device__ __forceinline__ float warp_largest(float x) {
    u32 bits = __float_as_uint(x) & 0x7fffffffu;
#pragma unroll
    for (int o = 16; o; o >>= 1) bits = max(bits, __shfl_xor_sync(FULL, bits, o));
    return __uint_as_float(min(bits, 0x7f800000u));
}

// The sum over a block of whole warps, in every thread. Every thread must call it.
__device__ __forceinline__ float block_sum(float x, float *shared32) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared32[threadIdx.x / 32] = x;
    __syncthreads();
    u32 warps = blockDim.x / 32;
    x = threadIdx.x % 32 < warps ? shared32[threadIdx.x % 32] : 0.0f;
    return warp_sum(x);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// ------------------------------------------------------------------ rows

// Turns the trailing pairs of a row in shared memory by (cosine, sine).
__device__ __forceinline__ void rotate(float *v, u32 n, u32 rope, const float2 *turns) {
    float *tail = v + (n - rope);
    for (u32 i = threadIdx.x; i < rope / 2; i += blockDim.x) {
        float a = tail[2 * i], b = tail[2 * i + 1];
        float2 t = turns[i];
        tail[2 * i] = a * t.x - b * t.y;
        tail[2 * i + 1] = a * t.y + b * t.x;
    }
    __syncthreads();
}

// One over the square root of a power of two: what a Walsh-Hadamard transform is multiplied with.
__device__ __forceinline__ float hadamard_norm(u32 n) {
    u32 log2 = 31 - __clz((int)n);
    return __fmul_rn(__uint_as_float((127 - log2 / 2) << 23), log2 % 2 ? 0.70710678118654752f : 1.0f);
}

// The orthonormal Walsh-Hadamard transform of a row in shared memory.
__device__ __forceinline__ void hadamard(float *v, u32 n) {
    for (u32 stride = 1; stride < n; stride *= 2) {
        for (u32 i = threadIdx.x; i < n / 2; i += blockDim.x) {
            u32 low = 2 * (i & ~(stride - 1)) + (i & (stride - 1));
            float a = v[low], b = v[low + stride];
            v[low] = a + b;
            v[low + stride] = a - b;
        }
        __syncthreads();
    }
    float norm = hadamard_norm(n);
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) v[i] *= norm;
    __syncthreads();
}

// Four neighbouring values of a packed attention row as they lie there: two loads whatever they are, so
// that many can be under way. `at` is a multiple of four.
__device__ __forceinline__ uint2 packed4(const u8 *row, const RowFormat f, u32 at) {
    bool code = at < f.nope;
    const u8 *values = row + (code ? at : f.rope_at + 2 * (at - f.nope));
    const u8 *second = code ? row + (f.nope + at / 64) / 4 * 4 : values + 4;
    return make_uint2(*(const u32 *)values, *(const u32 *)second);
}

__device__ __forceinline__ float4 decode4(uint2 raw, const RowFormat f, u32 at) {
    if (at < f.nope) {
        u32 codes = raw.x;
        float scale = e8m0_to_f32(raw.y >> ((f.nope + at / 64) % 4 * 8) & 255);
        return make_float4(e4m3_to_f32(codes & 255) * scale, e4m3_to_f32(codes >> 8 & 255) * scale,
                           e4m3_to_f32(codes >> 16 & 255) * scale, e4m3_to_f32(codes >> 24) * scale);
    }
    return make_float4(f16_to_f32((u16)raw.x), f16_to_f32((u16)(raw.x >> 16)), f16_to_f32((u16)raw.y), f16_to_f32((u16)(raw.y >> 16)));
}

// Where a compressed row lies. A ratio divides the tokens of a page.
__device__ __forceinline__ u8 *page_row(u8 *const *pages, u32 ratio, u32 layer_at, u32 index, u32 row_bytes) {
    u32 page = index * ratio / PAGE_TOKENS;
    return pages[page] + layer_at + (u64)(index - page * (PAGE_TOKENS / ratio)) * row_bytes;
}

// A stage and a row in one number: the smallest is the first that went wrong.
__device__ __forceinline__ void report(u32 *fault, u32 stage, u32 row) { atomicMin(fault, stage << 16 | row); }

// 1 / sqrt of an infinity is zero, of a NaN it is NaN.
__device__ __forceinline__ bool sound(float inverse_rms) {
    return inverse_rms >= 1.17549435e-38f && inverse_rms <= 3.40282347e38f;
}
