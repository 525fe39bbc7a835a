// Hyper-connections. `hyper_write` puts a block's output back into the streams and, while it has them
// at hand, starts the projection that the next block needs; `hyper_read` ends it and makes the input.

// Dimensions of a stream that one block takes.
static const u32 CHUNK = 64;

struct HyperWriteArgs {
    Matrix function;   // of the next block: F32, F16 or BF16
    const float *out;  // of the block before; none before the first
    const float *mix;  // of the block before: [rows][2N + N*N]
    float *streams;    // [rows][N][hidden]
    float *partial;    // [rows][function.rows + 1][chunks]: the last is the sum of squares
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
    invite();
    // A row of the function begins a line for each stream; a thread asks for one of them.
    u32 line = threadIdx.x / 4, part = threadIdx.x % 4;
    if (line < a.function.rows && part < a.n && first < a.hidden) {
        u32 width = a.function.format == F32 ? 4 : 2;
        prefetch(a.function.codes + ((u64)line * a.function.cols + (u64)part * a.hidden + first) * width);
    }
    await();
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
    float *partial = a.partial + (u64)row * (a.function.rows + 1) * gridDim.x + blockIdx.x;
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
        if (lane == 0) partial[(u64)r * gridDim.x] = sum;
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
    u16 *half; // [rows][hidden], or null: x as halves
};

// One over `x`, off by at most the last bit: every division that follows takes such an error out again.
__device__ __forceinline__ float inverse_of(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Brings a matrix of weights close to doubly stochastic: a softmax in each row, then columns and rows
// are divided by their sums in turns. One thread holds it all: there is nothing to wait for.
__device__ __forceinline__ void balance(float (&z)[4][4], u32 n, u32 iterations, float eps) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        float largest = z[i][0], sum = 0.0f;
#pragma unroll
        for (u32 j = 1; j < 4; j++) largest = fmaxf(largest, j < n ? z[i][j] : largest);
#pragma unroll
        for (u32 j = 0; j < 4; j++) sum += z[i][j] = i < n && j < n ? expf(z[i][j] - largest) : 0.0f;
#pragma unroll
        for (u32 j = 0; j < 4; j++) z[i][j] = i < n && j < n ? z[i][j] / sum + eps : 0.0f;
    }
    for (u32 k = 0; k < iterations; k++) {
        if (k > 0) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                float over = i < n ? inverse_of((z[i][0] + z[i][1]) + (z[i][2] + z[i][3]) + eps) : 0.0f;
#pragma unroll
                for (u32 j = 0; j < 4; j++) z[i][j] *= over;
            }
        }
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            float over = j < n ? inverse_of((z[0][j] + z[1][j]) + (z[2][j] + z[3][j]) + eps) : 0.0f;
#pragma unroll
            for (u32 i = 0; i < 4; i++) z[i][j] *= over;
        }
    }
}

// The second block of a row makes what the output will be written back with, the first the input.
extern "C" __global__ void __launch_bounds__(1024) hyper_read(const HyperReadArgs a) {
    __shared__ float m[32], shared32[32];
    enter();
    u32 row = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 projected = a.head ? a.n : a.mix_rows;
    const float *partial = a.partial + (u64)row * a.chunks * (projected + 1);
    // The streams are asked for before the weights on them are known.
    float4 s[2][4];
    const float *streams = a.streams + (u64)row * a.n * a.hidden;
#pragma unroll
    for (u32 k = 0; k < 2; k++) {
        u32 d = 4 * (threadIdx.x + k * 1024);
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (blockIdx.y == 0 && d < a.hidden && i < a.n) s[k][i] = *(const float4 *)(streams + (u64)i * a.hidden + d);
    }
    if (warp <= projected) {
        float sum = 0.0f;
        for (u32 c = lane; c < a.chunks; c += 32) sum += partial[(u64)warp * a.chunks + c];
        sum = warp_sum(sum);
        if (lane == 0) m[warp] = sum;
    }
    __syncthreads();
    float inverse = 1.0f / sqrtf(m[projected] / (float)(a.n * a.hidden) + a.rms_eps);
    if (blockIdx.y == 1) {
        float *mix = a.mix + (u64)row * a.mix_rows;
        if (warp == 1 && lane < a.n) mix[a.n + lane] = 2.0f * sigmoid(m[a.n + lane] * inverse * a.scale[1] + a.base[a.n + lane]);
        if (threadIdx.x == 0) {
            float z[4][4];
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    u32 at = 2 * a.n + i * a.n + j;
                    z[i][j] = i < a.n && j < a.n ? m[at] * inverse * a.scale[2] + a.base[at] : 0.0f;
                }
            balance(z, a.n, a.iterations, a.hc_eps);
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++)
                    if (i < a.n && j < a.n) mix[2 * a.n + i * a.n + j] = z[i][j];
        }
        return;
    }
    if (threadIdx.x == 0 && !sound(inverse)) report(a.fault, a.stage, row);
    u32 target = row;
    if (a.head) {
        target = a.rows[row].want;
        if (target == NOWHERE) return;
    }

    float pre[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        pre[i] = i < a.n ? sigmoid(m[i] * inverse * a.scale[0] + a.base[i]) + a.hc_eps : 0.0f;
    float4 y[2];
    float squares = 0.0f;
#pragma unroll
    for (u32 k = 0; k < 2; k++) {
        y[k] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (4 * (threadIdx.x + k * 1024) >= a.hidden) continue;
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (i < a.n) add_product(y[k], make_float4(pre[i], pre[i], pre[i], pre[i]), s[k][i]);
        squares += (y[k].x * y[k].x + y[k].y * y[k].y) + (y[k].z * y[k].z + y[k].w * y[k].w);
    }
    float scale = 1.0f / sqrtf(block_sum(squares, shared32) / (float)a.hidden + a.rms_eps);
#pragma unroll
    for (u32 k = 0; k < 2; k++) {
        u32 d = 4 * (threadIdx.x + k * 1024);
        if (d >= a.hidden) continue;
        float4 w = *(const float4 *)(a.norm + d);
        float4 x = make_float4(y[k].x * scale * w.x, y[k].y * scale * w.y, y[k].z * scale * w.z, y[k].w * scale * w.w);
        *(float4 *)(a.x + (u64)target * a.hidden + d) = x;
        if (a.half) store_halves(a.half, (u64)target * a.hidden + d, x);
    }
}
