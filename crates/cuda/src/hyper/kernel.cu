// Hyper-connections. `hyper_write` puts a block's output back into the streams and, while it has them
// at hand, starts the projection that the next block needs; `hyper_read` ends it and makes the input.

// Dimensions of a stream that one block takes.
static const u32 CHUNK = 64;

struct HyperWriteArgs {
    Matrix function;   // of the next block: F32, F16 or BF16
    const float *out;  // of the block before; none before the first
    const float *mix;  // of the block before: [rows][2N + N*N]
    float *streams;    // [rows][N][hidden]
    float *partial;    // [rows][chunks][function.rows + 1]: the last is the sum of squares
    u32 hidden, n, mix_rows, write;
};

// Eight neighbouring weights of a function.
__device__ __forceinline__ void weight8(const Matrix &m, u64 at, float (&w)[8]) {
    if (m.format == F32) {
        float4 a = __ldg((const float4 *)m.codes + at / 4), b = __ldg((const float4 *)m.codes + at / 4 + 1);
        w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w, w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
        return;
    }
    uint4 h = __ldg((const uint4 *)m.codes + at / 8);
    u32 q[4] = {h.x, h.y, h.z, h.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u16 low = (u16)q[i], high = (u16)(q[i] >> 16);
        w[2 * i] = m.format == F16 ? f16_to_f32(low) : bf16_to_f32(low);
        w[2 * i + 1] = m.format == F16 ? f16_to_f32(high) : bf16_to_f32(high);
    }
}

extern "C" __global__ void __launch_bounds__(256) hyper_write(const HyperWriteArgs a) {
    __shared__ float v[4 * CHUNK];
    u32 row = blockIdx.y, first = blockIdx.x * CHUNK;
    float *streams = a.streams + (u64)row * a.n * a.hidden;
    u32 s = threadIdx.x / CHUNK, d = first + threadIdx.x % CHUNK;
    float x = 0.0f;
    if (s < a.n && d < a.hidden) {
        if (a.write) {
            const float *mix = a.mix + (u64)row * a.mix_rows;
            x = mix[a.n + s] * a.out[(u64)row * a.hidden + d];
            for (u32 i = 0; i < a.n; i++) x += mix[2 * a.n + i * a.n + s] * streams[(u64)i * a.hidden + d];
        } else {
            x = streams[(u64)s * a.hidden + d];
        }
    }
    v[threadIdx.x] = x;
    __syncthreads(); // the streams are read by all before one is written
    if (a.write && s < a.n && d < a.hidden) streams[(u64)s * a.hidden + d] = x;

    u32 lane = threadIdx.x % 32;
    u32 stream = lane / 8, at = lane % 8 * 8;
    bool inside = stream < a.n && first + at < a.hidden;
    float mine[8];
#pragma unroll
    for (int i = 0; i < 8; i++) mine[i] = v[stream * CHUNK + at + i];
    float *partial = a.partial + ((u64)row * gridDim.x + blockIdx.x) * (a.function.rows + 1);
    for (u32 r = threadIdx.x / 32; r <= a.function.rows; r += 8) {
        float w[8], sum = 0.0f;
        if (inside) {
            if (r < a.function.rows)
                weight8(a.function, (u64)r * a.function.cols + (u64)stream * a.hidden + first + at, w);
            else
                for (int i = 0; i < 8; i++) w[i] = mine[i];
#pragma unroll
            for (int i = 0; i < 8; i++) sum += w[i] * mine[i];
        }
        sum = warp_sum(sum);
        if (lane == 0) partial[r] = sum;
    }
}

struct HyperReadArgs {
    const float *partial;
    const float *streams;
    const float *base, *scale, *norm;
    float *mix; // [rows][2N + N*N]
    float *x;   // [rows][hidden]
    const Row *rows;
    u32 *fault;
    u32 hidden, n, mix_rows, chunks;
    u32 iterations, head, stage;
    float hc_eps, rms_eps;
    u32 unused;
    Quantised quantised; // of x; without codes: not wanted
};

// The sum over lanes `o` apart within the 4 x 4 (or smaller) matrix that the lanes hold.
__device__ __forceinline__ float sum_over(float x, u32 n, u32 step) {
    for (u32 o = 1; o < n; o *= 2) x += __shfl_xor_sync(FULL, x, o * step);
    return x;
}

extern "C" __global__ void __launch_bounds__(1024) hyper_read(const HyperReadArgs a) {
    __shared__ float m[32], shared32[32];
    u32 row = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 projected = a.head ? a.n : a.mix_rows;
    const float *partial = a.partial + (u64)row * a.chunks * (projected + 1);
    if (warp <= projected) {
        float sum = 0.0f;
        for (u32 c = lane; c < a.chunks; c += 32) sum += partial[(u64)c * (projected + 1) + warp];
        sum = warp_sum(sum);
        if (lane == 0) m[warp] = sum;
    }
    __syncthreads();
    float inverse = 1.0f / sqrtf(m[projected] / (float)(a.n * a.hidden) + a.rms_eps);
    if (threadIdx.x == 0 && !sound(inverse)) report(a.fault, a.stage, row);

    u32 target = row;
    if (a.head) {
        target = a.rows[row].want;
        if (target == NOWHERE) return;
    } else if (warp == 31) {
        // The last warp balances the matrix while the others make the input.
        float *mix = a.mix + (u64)row * a.mix_rows;
        u32 i = lane < a.n * a.n ? lane : 0;
        float z = m[2 * a.n + i] * inverse * a.scale[2] + a.base[2 * a.n + i];
        float largest = z;
        for (u32 o = 1; o < a.n; o *= 2) largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, o));
        z = expf(z - largest);
        z = z / sum_over(z, a.n, 1) + a.hc_eps;
        z = z / (sum_over(z, a.n, a.n) + a.hc_eps);
        for (u32 k = 1; k < a.iterations; k++) {
            z = z / (sum_over(z, a.n, 1) + a.hc_eps);
            z = z / (sum_over(z, a.n, a.n) + a.hc_eps);
        }
        if (lane < a.n * a.n) mix[2 * a.n + lane] = z;
        if (lane < a.n) mix[a.n + lane] = 2.0f * sigmoid(m[a.n + lane] * inverse * a.scale[1] + a.base[a.n + lane]);
    }

    float pre[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        pre[i] = i < a.n ? sigmoid(m[i] * inverse * a.scale[0] + a.base[i]) + a.hc_eps : 0.0f;
    const float *streams = a.streams + (u64)row * a.n * a.hidden;
    float *x = a.x + (u64)target * a.hidden;
    float squares = 0.0f;
    for (u32 d = 4 * threadIdx.x; d < a.hidden; d += 4 * blockDim.x) {
        float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (u32 i = 0; i < a.n; i++) {
            float4 s = *(const float4 *)(streams + (u64)i * a.hidden + d);
            add_product(y, make_float4(pre[i], pre[i], pre[i], pre[i]), s);
        }
        *(float4 *)(x + d) = y;
        squares += (y.x * y.x + y.y * y.y) + (y.z * y.z + y.w * y.w);
    }
    float scale = 1.0f / sqrtf(block_sum(squares, shared32) / (float)a.hidden + a.rms_eps);
    for (u32 d = 4 * threadIdx.x; d < a.hidden; d += 4 * blockDim.x) {
        float4 y = *(const float4 *)(x + d), w = *(const float4 *)(a.norm + d);
        y = make_float4(y.x * scale * w.x, y.y * scale * w.y, y.z * scale * w.z, y.w * scale * w.w);
        *(float4 *)(x + d) = y;
        if (a.quantised.codes) quantise_quads(a.quantised, (u64)target * a.hidden + d, y);
    }
}
