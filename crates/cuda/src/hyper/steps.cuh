// Hyper-connections, in steps that several kernels share: a block's output goes back into the streams, the
// new streams are projected, the projection gives the weights of the next block's input, and that is normed.
//
// Which kernel does a step may depend on how many rows there are; a row's bits must not. So every sum is
// taken in one order, and roundings are said, that the compiler fuses nothing here and not there.

// Dimensions of a stream that a block of 256 threads takes.
static const u32 CHUNK = 256;
// Sums of a chunk: from each warp three rows of the function, up to 24 in all, and the squares.
static const u32 SUMS = 32, SQUARES = 24;
// Groups of 128 dimensions whose squares are summed up.
static const u32 GROUPS = 64;
// Parts of an output that are added up here, at most.
static const u32 MOST_PARTS = 8;

struct HyperArgs {
    Matrix function;  // of the next block: F32, F16 or BF16
    const float *out; // of the block before; none before the first. In parts: [rows][parts][hidden]
    float *mix;       // [rows][2N + N*N]: of the block before, then of the next
    float *streams;   // [rows][N][hidden]
    float *partial;   // [rows][chunks][SUMS]
    const float *base, *scale, *norm;
    float *x;  // [rows][hidden]
    u16 *half; // the same as halves, or null
    Numbers numbers; // and as whole numbers
    const Row *rows;
    u32 *fault;
    u32 count, per_block; // rows, and how many of them a block of hyper_write takes
    u32 hidden, n, mix_rows, chunks;
    u32 write, iterations, head, stage;
    float hc_eps, rms_eps;
    u32 parts, unused; // of a row's `out`, of which the last comes first in its sum; 0: it is whole
};

// ------------------------------------------------------------------ streams

// What a thread multiplies with, as it lies in memory: of three rows of the function eight times four
// neighbouring columns. Those of a function of floats do not fit and are read when they are needed.
struct Share {
    uint2 q[3][8];
};

// Weights depend on nothing, so these may come before `await`.
__device__ __forceinline__ uint2 early(const u8 *p) {
    uint2 q;
    asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(q.x), "=r"(q.y) : "l"(p));
    return q;
}

__device__ __forceinline__ float early(const float *p) {
    float x;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(p));
    return x;
}

__device__ __forceinline__ float4 early(const float4 *p) {
    float4 x;
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "l"(p));
    return x;
}

// Column quad `k` of a lane: which one of the function's row; false outside.
__device__ __forceinline__ bool column(const HyperArgs &a, u32 first, u32 k, u64 &at) {
    u32 d = first + k % 2 * 128 + threadIdx.x % 32 * 4;
    at = (u64)(k / 2) * a.hidden + d;
    return k / 2 < a.n && d < a.hidden;
}

// What lies outside meets streams of zeros, or sums that nobody looks at: any weights will do.
__device__ __forceinline__ void load_share(const HyperArgs &a, u32 first, Share &w) {
    const u8 *rows[3];
#pragma unroll
    for (u32 j = 0; j < 3; j++) rows[j] = a.function.codes + 2 * ((u64)min(threadIdx.x / 32 * 3 + j, a.function.rows - 1) * a.function.cols);
#pragma unroll
    for (u32 k = 0; k < 8; k++) {
        u32 d = min(first + k % 2 * 128 + threadIdx.x % 32 * 4, a.hidden - 4), at = 2 * (min(k / 2, a.n - 1) * a.hidden + d);
#pragma unroll
        for (u32 j = 0; j < 3; j++) {
            w.q[j][k] = make_uint2(0, 0);
            if (a.function.format != F32) w.q[j][k] = early(rows[j] + at);
        }
    }
}

// Asks for the lines of memory that it lies in.
__device__ __forceinline__ void ask_for_share(const HyperArgs &a, u32 first) {
    u32 width = a.function.format == F32 ? 4 : 2;
    for (u32 j = 0; j < 3; j++)
        for (u32 k = 0; k < 8; k++) {
            u32 r = threadIdx.x / 32 * 3 + j;
            u64 at;
            if (threadIdx.x % 8 == 0 && column(a, first, k, at) && r < a.function.rows)
                prefetch(a.function.codes + width * (r * (u64)a.function.cols + at));
        }
}

template <int F> __device__ __forceinline__ float4 share4(const HyperArgs &a, const Share &w, u32 first, u32 j, u32 k) {
    if (F == F32) {
        u32 r = threadIdx.x / 32 * 3 + j;
        u64 at;
        if (!column(a, first, k, at) || r >= a.function.rows) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return __ldg((const float4 *)((const float *)a.function.codes + r * (u64)a.function.cols + at));
    }
    uint2 q = w.q[j][k];
    if (F == F16)
        return make_float4(f16_to_f32((u16)q.x), f16_to_f32((u16)(q.x >> 16)), f16_to_f32((u16)q.y), f16_to_f32((u16)(q.y >> 16)));
    return make_float4(bf16_to_f32((u16)q.x), bf16_to_f32((u16)(q.x >> 16)), bf16_to_f32((u16)q.y), bf16_to_f32((u16)(q.y >> 16)));
}

__device__ __forceinline__ void fused(float4 &sum, float w, float4 x) {
    sum = make_float4(__fmaf_rn(w, x.x, sum.x), __fmaf_rn(w, x.y, sum.y), __fmaf_rn(w, x.z, sum.z), __fmaf_rn(w, x.w, sum.w));
}

__device__ __forceinline__ float square4(float4 x) {
    return __fadd_rn(__fmaf_rn(x.x, x.x, __fmul_rn(x.y, x.y)), __fmaf_rn(x.z, x.z, __fmul_rn(x.w, x.w)));
}

// Counts the threads of a block whose parts have come.
__device__ __forceinline__ void open_parts_box(u64 *box) {
    asm volatile("mbarrier.init.shared.b64 [%0], 256;" ::"r"(shared_address(box)) : "memory");
}

// Asks for a chunk of all parts of B rows' outputs, [B][a.parts][CHUNK] in shared memory. Copies take no registers; and
// a wait at the box stays where it is said, where the assembler moves one for all copies before loads.
template <int B> __device__ __forceinline__ void ask_for_parts(const HyperArgs &a, const u32 (&rows)[B], u32 first, float *parts, u64 *box) {
    u32 thread = thread_anew(), group = thread / 64, at = thread % 64 * 4, d = first + at;
#pragma unroll
    for (u32 b = 0; b < B; b++)
#pragma unroll
        for (u32 k = 0; k < MOST_PARTS; k += 4) {
            if (group + k >= a.parts || d >= a.hidden) continue;
            const float *from = a.out + ((u64)rows[b] * a.parts + group + k) * a.hidden + d;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(parts + (b * a.parts + group + k) * CHUNK + at)), "l"(from) : "memory");
        }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(box)) : "memory");
}

// What the parts of an output add up to: the last, and then the others in order.
__device__ __forceinline__ float4 sum_of_parts(const float *parts, u32 count) {
    float4 sum = *(const float4 *)(parts + (count - 1) * CHUNK);
#pragma unroll
    for (u32 k = 0; k + 1 < MOST_PARTS; k++) {
        if (k + 1 >= count) break;
        float4 part = *(const float4 *)(parts + k * CHUNK);
        sum = make_float4(__fadd_rn(sum.x, part.x), __fadd_rn(sum.y, part.y), __fadd_rn(sum.z, part.z), __fadd_rn(sum.w, part.w));
    }
    return sum;
}

// Of each of B rows four neighbouring dimensions of a stream, new: a block has a thread for each four. All that is
// needed is asked for before anything is waited for.
template <int B, bool PARTS> __device__ __forceinline__ void mixed(const HyperArgs &a, const u32 (&rows)[B], u32 first, float *parts, u64 *parts_box, float4 (&x)[B]) {
    u32 s = threadIdx.x / 64, d = first + threadIdx.x % 64 * 4;
    float4 old[B][4], out[B];
    float weight[B][4], written[B];
#pragma unroll
    for (u32 b = 0; b < B; b++) x[b] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (PARTS) ask_for_parts<B>(a, rows, first, parts, parts_box);
    if (s >= a.n || d >= a.hidden) return;
    if (!PARTS && !a.write) {
#pragma unroll
        for (u32 b = 0; b < B; b++) x[b] = *(const float4 *)(a.streams + ((u64)rows[b] * a.n + s) * a.hidden + d);
        return;
    }
#pragma unroll
    for (u32 b = 0; b < B; b++) {
        const float *streams = a.streams + (u64)rows[b] * a.n * a.hidden + d, *mix = a.mix + (u64)rows[b] * a.mix_rows + a.n + s;
        written[b] = mix[0];
        if (!PARTS) out[b] = *(const float4 *)(a.out + (u64)rows[b] * a.hidden + d);
        // Streams that are not there weigh nothing: that is shorter than to leave them out.
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 from = min(i, a.n - 1);
            old[b][i] = *(const float4 *)(streams + from * a.hidden);
            weight[b][i] = mix[a.n + from * a.n];
        }
    }
    if (PARTS) {
        wait_for(parts_box);
        parts += thread_anew() % 64 * 4;
#pragma unroll
        for (u32 b = 0; b < B; b++) out[b] = sum_of_parts(parts + b * a.parts * CHUNK, a.parts);
    }
#pragma unroll
    for (u32 b = 0; b < B; b++) {
        fused(x[b], written[b], out[b]);
#pragma unroll
        for (u32 i = 0; i < 4; i++) fused(x[b], i < a.n ? weight[b][i] : 0.0f, old[b][i]);
    }
}

// Asks for what `mixed` will read.
__device__ __forceinline__ void ask_for_streams(const HyperArgs &a, u32 row, u32 first) {
    u32 s = threadIdx.x / 64, d = first + threadIdx.x % 64 * 4;
    if (threadIdx.x % 8 == 0 && s < a.n && d < a.hidden) prefetch(a.streams + ((u64)row * a.n + s) * a.hidden + d);
    if (threadIdx.x == 0) prefetch(a.mix + (u64)row * a.mix_rows);
}

// Puts it where the block finds it, [N][CHUNK] in `v`, and, if it is new, where it belongs. Gives the thread's squares.
__device__ __forceinline__ float place(const HyperArgs &a, u32 row, u32 first, float4 x, float *v, bool fresh) {
    u32 s = threadIdx.x / 64, d = first + threadIdx.x % 64 * 4;
    if (fresh && s < a.n && d < a.hidden) *(float4 *)(a.streams + ((u64)row * a.n + s) * a.hidden + d) = x;
    *(float4 *)(v + 4 * threadIdx.x) = x;
    return square4(x);
}

// Products of the warp's three rows of the function and the streams of B rows of the batch: the lane's part.
template <int F, int B>
__device__ __forceinline__ void project(const HyperArgs &a, const Share &w, u32 first, const float *v, float (&sum)[B][3]) {
#pragma unroll
    for (u32 b = 0; b < B; b++)
#pragma unroll
        for (u32 j = 0; j < 3; j++) sum[b][j] = 0.0f;
#pragma unroll
    for (u32 k = 0; k < 8; k++) {
        float4 c[3];
#pragma unroll
        for (u32 j = 0; j < 3; j++) c[j] = share4<F>(a, w, first, j, k);
#pragma unroll
        for (u32 b = 0; b < B; b++) {
            float4 x = *(const float4 *)(v + b * 4 * CHUNK + k * 128 + threadIdx.x % 32 * 4);
#pragma unroll
            for (u32 j = 0; j < 3; j++)
                sum[b][j] = __fmaf_rn(c[j].w, x.w, __fmaf_rn(c[j].z, x.z, __fmaf_rn(c[j].y, x.y, __fmaf_rn(c[j].x, x.x, sum[b][j]))));
        }
    }
}

// ------------------------------------------------------------------ weights of the streams

// What lane r turns the projection onto the function's row r with.
struct Ending {
    float scale, base;
};

__device__ __forceinline__ Ending load_ending(const HyperArgs &a, u32 lane) {
    u32 part = lane < a.n ? 0 : lane < 2 * a.n ? 1 : 2;
    if (lane >= a.function.rows) return Ending{0.0f, 0.0f};
    return Ending{early(a.scale + part), early(a.base + lane)};
}

// Ends the projection of a row: lane r gets what the function's row r says. A warp does it.
__device__ __forceinline__ float ended(const HyperArgs &a, const Ending &ending, const float *sums, u32 lane, float &inverse) {
    const float *mine = sums + (lane < SQUARES ? lane / 3 * 4 + lane % 3 : lane % 8 * 4 + 3);
    float t[16];
#pragma unroll
    for (u32 i = 0; i < 16; i++) t[i] = i < a.chunks ? mine[i * SUMS] : 0.0f;
    if (a.chunks > 16) {
#pragma unroll
        for (u32 i = 0; i < 16; i++)
            if (i + 16 < a.chunks) t[i] = __fadd_rn(t[i], mine[(i + 16) * SUMS]);
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++) t[i] = __fadd_rn(t[i], t[i + 8]);
#pragma unroll
    for (u32 i = 0; i < 4; i++) t[i] = __fadd_rn(t[i], t[i + 4]);
    t[0] = __fadd_rn(__fadd_rn(t[0], t[2]), __fadd_rn(t[1], t[3]));
    float squares = t[0];
#pragma unroll
    for (u32 o = 4; o; o >>= 1) squares = __fadd_rn(squares, __shfl_xor_sync(FULL, squares, o));
    squares = __shfl_sync(FULL, squares, SQUARES);
    inverse = 1.0f / sqrtf(__fadd_rn(squares / (float)(a.n * a.hidden), a.rms_eps));
    return lane < a.function.rows ? __fmaf_rn(__fmul_rn(t[0], inverse), ending.scale, ending.base) : 0.0f;
}

__device__ __forceinline__ float gate(float x) { return 1.0f / __fadd_rn(1.0f, expf(-x)); }

// One over `x`, off by at most the last bit: every division that follows takes such an error out again.
__device__ __forceinline__ float inverse_of(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Of a matrix that one thread holds: there is nothing to wait for.
__device__ __forceinline__ float inverse_sum(float a, float b, float c, float d, float eps) {
    return inverse_of(__fadd_rn(__fadd_rn(__fadd_rn(a, b), __fadd_rn(c, d)), eps));
}

__device__ __forceinline__ void balance_rows(float (&z)[4][4], const float (&eps)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        float over = inverse_sum(z[i][0], z[i][1], z[i][2], z[i][3], eps[i]);
#pragma unroll
        for (u32 j = 0; j < 4; j++) z[i][j] = __fmul_rn(z[i][j], over);
    }
}

__device__ __forceinline__ void balance_columns(float (&z)[4][4], const float (&eps)[4]) {
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        float over = inverse_sum(z[0][j], z[1][j], z[2][j], z[3][j], eps[j]);
#pragma unroll
        for (u32 i = 0; i < 4; i++) z[i][j] = __fmul_rn(z[i][j], over);
    }
}

// How the streams will mix, from what `ended` gave: brought close to doubly stochastic by a softmax in each
// row, then columns and rows are divided by their sums in turns. A warp does it; a rehearsal is short and leaves nothing.
__device__ __forceinline__ void store_mix(const HyperArgs &a, u32 row, float said, bool store) {
    u32 lane = threadIdx.x % 32, i = lane / 4 % 4, j = lane % 4, at = (2 * a.n + i * a.n + j) % 32;
    bool live = i < a.n && j < a.n;
    // The softmax: a lane has one weight.
    float one = __shfl_sync(FULL, said, at), largest = live ? one : -INFINITE, sum = 0.0f;
    largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, 2));
    one = live ? expf(one - largest) : 0.0f;
#pragma unroll
    for (u32 k = 0; k < 4; k++) sum = __fadd_rn(sum, __shfl_sync(FULL, one, 4 * i + k));
    one = live ? __fadd_rn(one / sum, a.hc_eps) : 0.0f;
    // Rows and columns that are not there are zeros, and stay so.
    float z[4][4], eps[4];
#pragma unroll
    for (u32 k = 0; k < 16; k++) z[k / 4][k % 4] = __shfl_sync(FULL, one, k);
#pragma unroll
    for (u32 k = 0; k < 4; k++) eps[k] = k < a.n ? a.hc_eps : 1.0f;
    u32 iterations = store ? a.iterations : 2;
    if (iterations > 0) balance_columns(z, eps);
#pragma unroll 1
    for (u32 k = 1; k < iterations; k++) {
        balance_rows(z, eps);
        balance_columns(z, eps);
    }
    float of_row[4];
#pragma unroll
    for (u32 k = 0; k < 4; k++) of_row[k] = i < 2 ? (i == 0 ? z[0][k] : z[1][k]) : (i == 2 ? z[2][k] : z[3][k]);
    one = j < 2 ? (j == 0 ? of_row[0] : of_row[1]) : (j == 2 ? of_row[2] : of_row[3]);
    if (store && lane < 16 && live) a.mix[(u64)row * a.mix_rows + at] = one;
}

// What the streams are read with: lane i gets the weight of stream i. The lanes behind know what a block's
// output will be written back with.
__device__ __forceinline__ float read_weight(const HyperArgs &a, u32 row, float said, bool store) {
    u32 lane = threadIdx.x % 32;
    float open = gate(said);
    if (store && !a.head && lane >= a.n && lane < 2 * a.n) a.mix[(u64)row * a.mix_rows + lane] = 2.0f * open;
    return lane < a.n ? __fadd_rn(open, a.hc_eps) : 0.0f;
}

// One over the root mean square of the input, from the squares of its groups. A warp does it.
__device__ __forceinline__ float input_scale(const HyperArgs &a, const float *groups) {
    float sum = warp_sum(__fadd_rn(groups[threadIdx.x % 32], groups[threadIdx.x % 32 + 32]));
    return 1.0f / sqrtf(__fadd_rn(sum / (float)a.hidden, a.rms_eps));
}

// Two warps store 256 columns together, if whole numbers are wanted.
__device__ __forceinline__ void store_input(const HyperArgs &a, u32 target, u32 d, float4 y, float scale, float4 w, Found &found, u32 pair) {
    float4 x = make_float4(y.x * scale * w.x, y.y * scale * w.y, y.z * scale * w.z, y.w * scale * w.w);
    *(float4 *)(a.x + (u64)target * a.hidden + d) = x;
    if (a.half) store_halves(a.half, (u64)target * a.hidden + d, x);
    if (a.numbers.lines || a.numbers.halves) store_numbers(a.numbers, target, a.hidden, d, x, found, pair);
}
