// Hyper-connections for any number of rows, in two launches: what `hyper_read` needs of a row comes from
// several blocks of `hyper_write`.

// Says that the weights may have changed. Else the compiler would decode all of them before the first row,
// and has no registers for them.
__device__ __forceinline__ void keep_packed(Share &w) {
#pragma unroll
    for (u32 j = 0; j < 3; j++)
#pragma unroll
        for (u32 k = 0; k < 8; k++) asm volatile("" : "+r"(w.q[j][k].x), "+r"(w.q[j][k].y));
}

template <int F, int B>
__device__ __forceinline__ void write_rows(const HyperArgs &a, Share &w, u32 row, float *v) {
    keep_packed(w);
    u32 chunk = blockIdx.x, first = chunk * CHUNK, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float4 x[B][1];
    float squares[B], sum[B][3];
#pragma unroll
    for (u32 b = 0; b < B; b++) mixed<1, false>(a, {row + b}, first, nullptr, nullptr, x[b]);
    __syncthreads(); // all have read the streams, and what `v` held, before either is written
#pragma unroll
    for (u32 b = 0; b < B; b++) squares[b] = place(a, row + b, first, x[b][0], v + b * 4 * CHUNK, a.write);
    __syncthreads();
    project<F, B>(a, w, first, v, sum);
#pragma unroll
    for (u32 b = 0; b < B; b++) {
        float *partial = a.partial + ((u64)(row + b) * a.chunks + chunk) * SUMS;
        float4 four = make_float4(warp_sum(sum[b][0]), warp_sum(sum[b][1]), warp_sum(sum[b][2]), warp_sum(squares[b]));
        if (lane == 0) *(float4 *)(partial + 4 * warp) = four;
    }
}

template <int F> __device__ __forceinline__ void write_all(const HyperArgs &a, Share &w, float *v) {
    u32 row = blockIdx.y * a.per_block, end = min(row + a.per_block, a.count);
    // Functions of floats have no registers left for four.
    for (; F != F32 && row + 4 <= end; row += 4) write_rows<F, 4>(a, w, row, v);
    for (; row < end; row++) write_rows<F, 1>(a, w, row, v);
}

// A block holds its share of the function and takes row after row past it.
extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) hyper_write(const HyperArgs a) {
    __shared__ __align__(16) float v[4 * 4 * CHUNK];
    Share w;
    invite();
    // The assembler moves the loads themselves behind the wait.
    if (a.per_block == 1) ask_for_share(a, blockIdx.x * CHUNK);
    load_share(a, blockIdx.x * CHUNK, w);
    await();
    if (a.function.format == F32)
        write_all<F32>(a, w, v);
    else if (a.function.format == F16)
        write_all<F16>(a, w, v);
    else
        write_all<BF16>(a, w, v);
}

// The first blocks make how the streams will mix, a warp for each row; then every row has a block that makes
// its input. The head has nothing to write back.
extern "C" __global__ void THREADS(256) hyper_read(const HyperArgs a) {
    __shared__ float pre[4], groups[GROUPS];
    __shared__ Found found[GROUPS / 2];
    invite();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Ending ending = load_ending(a, lane);
    await();
    u32 mixers = a.head ? 0 : (a.count + 7) / 8;
    float inverse;
    if (blockIdx.x < mixers) {
        u32 row = blockIdx.x * 8 + warp;
        if (row >= a.count) return;
        store_mix(a, row, ended(a, ending, a.partial + (u64)row * a.chunks * SUMS, lane, inverse), true);
        return;
    }
    u32 row = blockIdx.x - mixers;
    const float *streams = a.streams + (u64)row * a.n * a.hidden;
    // The streams are asked for before the weights on them are known.
    for (u32 at = threadIdx.x * 32; at < a.n * a.hidden; at += 8192) prefetch(streams + at);
    if (warp == 0) {
        float weight = read_weight(a, row, ended(a, ending, a.partial + (u64)row * a.chunks * SUMS, lane, inverse), true);
        if (lane < 4) pre[lane] = weight;
        if (lane == 0 && !sound(inverse)) report(a.fault, a.stage, row);
    }
    u32 target = a.head ? a.rows[row].want : row;
    if (target == NOWHERE) return;
    __syncthreads();

    float4 y[8];
#pragma unroll
    for (u32 k = 0; k < 8; k++) {
        u32 d = 4 * (threadIdx.x + k * 256);
        y[k] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        float4 s[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (i < a.n && d < a.hidden) s[i] = *(const float4 *)(streams + (u64)i * a.hidden + d);
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (i < a.n && d < a.hidden) fused(y[k], pre[i], s[i]);
        float squares = 1024 * k < a.hidden ? warp_sum(square4(y[k])) : 0.0f;
        if (lane == 0) groups[warp + 8 * k] = squares;
    }
    __syncthreads();
    float scale = input_scale(a, groups);
#pragma unroll
    for (u32 k = 0; k < 8; k++) {
        u32 d = 4 * (threadIdx.x + k * 256);
        if (d < a.hidden) store_input(a, target, d, y[k], scale, __ldg((const float4 *)(a.norm + d)), found[warp / 2 + 4 * k], warp / 2);
    }
}
