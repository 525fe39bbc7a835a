// Quantised weights times eight-bit activations. Sums of products are integers within a block; the
// order of the rest depends on the columns alone.

struct Product8 {
    Product p;         // as in full precision, which other formats fall back to
    Quantised x;       // without codes: the input is not quantised
    Quantised y;       // without codes: the output is not
    u32 rows_per_warp; // 1 or 4; 4 where the output is quantised
    u32 unused;
};

struct Products8Args {
    const Product8 *products;
    u32 count;
    u32 rows; // of the batch
};

// Four times four signed products.
__device__ __forceinline__ int dot16(int4 a, int4 b) {
    return __dp4a(a.x, b.x, __dp4a(a.y, b.y, __dp4a(a.z, b.z, __dp4a(a.w, b.w, 0))));
}

// Weights are read once: they should not drive out what is read again.
__device__ __forceinline__ int4 stream16(const void *p) { return __ldcs((const int4 *)p); }

// `R` rows of Q8_0 times `T` vectors; a lane takes 16 columns of every 512.
template <int R, int T>
__device__ __forceinline__ void q8_dots(const Matrix &m, u32 row, const signed char *const (&x)[T],
                                        const float *const (&scales)[T], float (&sum)[R][T]) {
    u32 lane = threadIdx.x % 32;
    const u8 *codes = m.codes + (u64)row * m.cols;
    const u8 *halves = m.scales + (u64)row * (m.cols / 32) * 2;
#pragma unroll 4
    for (u32 c = 16 * lane; c < m.cols; c += 512) {
        int4 w[R];
        float d[R];
#pragma unroll
        for (int r = 0; r < R; r++) {
            w[r] = stream16(codes + (u64)r * m.cols + c);
            d[r] = half_at(halves + ((u64)r * (m.cols / 32) + c / 32) * 2);
        }
#pragma unroll
        for (int t = 0; t < T; t++) {
            int4 v = *(const int4 *)(x[t] + c);
            float s = scales[t][c / 32];
#pragma unroll
            for (int r = 0; r < R; r++) sum[r][t] += (float)dot16(w[r], v) * (d[r] * s);
        }
    }
}

template <int R, int T> __device__ __forceinline__ void product8_rows(const Product8 &p, u32 row, u32 first, u32 rows, float *shared) {
    const signed char *x[T];
    const float *scales[T];
    float sum[R][T];
#pragma unroll
    for (int t = 0; t < T; t++) {
        u64 at = (u64)min(first + t, rows - 1) * p.p.x_stride + (u64)(row / p.p.group_rows) * p.p.group_stride;
        x[t] = p.x.codes + at;
        scales[t] = p.x.scales + at / 32;
#pragma unroll
        for (int r = 0; r < R; r++) sum[r][t] = 0.0f;
    }
    if (row < p.p.m.rows) q8_dots<R, T>(p.p.m, row, x, scales, sum);
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < T; t++) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            float y = warp_sum(sum[r][t]);
            if (lane != 0) continue;
            if (R == 4) shared[t * 32 + (threadIdx.x / 32) * R + r] = y;
            if (row + r < p.p.m.rows && first + t < rows) p.p.y[(u64)(first + t) * p.p.y_stride + row + r] = y;
        }
    }
    if (R == 4 && p.y.codes) {
        // The block's 32 rows are one group of the output.
        __syncthreads();
        u32 t = threadIdx.x / 32, group = row - row % 32;
        if (t < T && first + t < rows) quantise_warp(p.y, (u64)(first + t) * p.p.y_stride + group, shared[t * 32 + lane]);
    }
}

template <int T> __device__ __forceinline__ void products8_block(const Products8Args &a) {
    __shared__ float shared[T * 32];
    invite();
    u32 i = 0;
    while (i + 1 < a.count && a.products[i + 1].p.first_block <= blockIdx.x) i++;
    const Product8 &p = a.products[i];
    u32 first = blockIdx.y * T;
    u32 row = ((blockIdx.x - p.p.first_block) * 8 + threadIdx.x / 32) * p.rows_per_warp;
    // Weights do not wait for anything.
    u32 count = min(p.rows_per_warp, p.p.m.rows - min(row, p.p.m.rows));
    if (p.p.m.format == Q8_0) {
        prefetch_span(p.p.m.codes + (u64)row * p.p.m.cols, count * p.p.m.cols);
        prefetch_span(p.p.m.scales + (u64)row * (p.p.m.cols / 32) * 2, count * (p.p.m.cols / 32) * 2);
    } else if (p.p.m.format == F16 || p.p.m.format == BF16) {
        prefetch_span(p.p.m.codes + (u64)row * p.p.m.cols * 2, count * p.p.m.cols * 2);
    }
    await();
    const int together = T < 4 ? T : 4;
    if (p.x.codes && p.p.m.format == Q8_0) {
        if (p.rows_per_warp == 1) return product8_rows<1, T>(p, row, first, a.rows, shared);
        // More than four times four sums do not fit into the registers.
        for (u32 t = 0; t < T && first + t < a.rows; t += 4) {
            if (t > 0) __syncthreads();
            product8_rows<4, together>(p, row, first + t, a.rows, shared);
        }
        return;
    }
    for (u32 r = row; r < min(row + p.rows_per_warp, p.p.m.rows); r++) {
        for (u32 t = 0; t < T && first + t < a.rows; t += together) {
#define BODY(F) product_row<F, together>(p.p, r, first + t, a.rows)
            FOR_FORMAT(p.p.m.format, BODY)
#undef BODY
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) products8_1(const Products8Args a) { products8_block<1>(a); }
extern "C" __global__ void __launch_bounds__(256) products8_4(const Products8Args a) { products8_block<4>(a); }
extern "C" __global__ void __launch_bounds__(256) products8_8(const Products8Args a) { products8_block<8>(a); }

struct Experts8Args {
    ExpertsArgs e;
    Quantised x;      // [rows][hidden]
    Quantised middle; // [rows][used + 1][inner]
};

// What IQ2_XXS looks up: magnitudes by index, and by seven signs eight bytes, all ones for a minus.
struct Iq2Tables {
    uint2 magnitudes[256];
    uint2 signs[128];
};

// One bit of the low four to each byte: all ones where it is set.
__device__ __forceinline__ u32 spread(u32 bits) { return (bits * 0x00204081u & 0x01010101u) * 255u; }

// Filled by a block of 256 threads.
__device__ __forceinline__ void fill(Iq2Tables &t) {
    u64 eight = IQ2_XXS_GRID[threadIdx.x];
    t.magnitudes[threadIdx.x] = make_uint2((u32)eight, (u32)(eight >> 32));
    if (threadIdx.x < 128) {
        u32 signs = threadIdx.x | (__popc(threadIdx.x) & 1) << 7;
        t.signs[threadIdx.x] = make_uint2(spread(signs & 15), spread(signs >> 4));
    }
}

// Eight weights of IQ2_XXS, magnitudes times signs, with eight activations.
__device__ __forceinline__ int iq2_dot8(const Iq2Tables &t, u32 index, u32 seven, u32 low, u32 high, int sum) {
    uint2 magnitudes = t.magnitudes[index], signs = t.signs[seven];
    u32 a = magnitudes.x, b = magnitudes.y, m = signs.x, n = signs.y;
    // Where a sign is set, x ^ ones is -x - 1: what is missing is the magnitude itself.
    sum = __dp4a((int)a, (int)(low ^ m), sum);
    sum = __dp4a((int)b, (int)(high ^ n), sum);
    sum = __dp4a((int)(a & m), 0x01010101, sum);
    return __dp4a((int)(b & n), 0x01010101, sum);
}

// 32 weights of IQ2_XXS with 32 activations: eight times the integer sum of products.
__device__ __forceinline__ float iq2_dot32(u32 indices, u32 word, int4 x, int4 y, const Iq2Tables &t) {
    int sum = iq2_dot8(t, indices & 255, word & 127, x.x, x.y, 0);
    sum = iq2_dot8(t, indices >> 8 & 255, word >> 7 & 127, x.z, x.w, sum);
    sum = iq2_dot8(t, indices >> 16 & 255, word >> 14 & 127, y.x, y.y, sum);
    sum = iq2_dot8(t, indices >> 24, word >> 21 & 127, y.z, y.w, sum);
    return (float)sum * ((float)(word >> 28) + 0.5f);
}

// `R` rows of IQ2_XXS times a vector; a lane takes 64 columns of every 2048.
template <int R> __device__ __forceinline__ void iq2_dots(const Matrix &m, u32 row, const signed char *x, const float *scales, const Iq2Tables &tables, float (&sum)[R]) {
    u32 lane = threadIdx.x % 32, blocks = m.cols / 256;
    for (u32 u = lane; u < m.cols / 64; u += 32) {
        int4 w[R];
        float d[R];
#pragma unroll
        for (int r = 0; r < R; r++) {
            u64 block = (u64)(row + r) * blocks + u / 4;
            w[r] = stream16(m.codes + block * 64 + u % 4 * 16);
            d[r] = 0.25f * half_at(m.scales + block * 2);
        }
        const int4 *v = (const int4 *)(x + 64 * u);
        int4 a = v[0], b = v[1], c = v[2], e = v[3];
        float s = scales[2 * u], t = scales[2 * u + 1];
#pragma unroll
        for (int r = 0; r < R; r++)
            sum[r] += d[r] * (iq2_dot32(w[r].x, w[r].y, a, b, tables) * s + iq2_dot32(w[r].z, w[r].w, c, e, tables) * t);
    }
}

// A block computes 32 values of the inner vector of one expert, and quantises them.
extern "C" __global__ void __launch_bounds__(256) experts8_in(const Experts8Args a) {
    __shared__ Iq2Tables tables;
    __shared__ float values[32];
    const ExpertsArgs &e = a.e;
    u32 r = blockIdx.z, k = blockIdx.y, lane = threadIdx.x % 32;
    u32 i = blockIdx.x * 32 + threadIdx.x / 32 * 4;
    invite();
    if (k < e.used) fill(tables);
    if (k == e.used) {
        u32 bytes = 4 * e.hidden, at = i * e.hidden;
        prefetch_span(e.shared_gate.codes + at, bytes);
        prefetch_span(e.shared_up.codes + at, bytes);
        prefetch_span(e.shared_gate.scales + at / 16, bytes / 16);
        prefetch_span(e.shared_up.scales + at / 16, bytes / 16);
    }
    await();
    const signed char *x = a.x.codes + (u64)r * e.hidden;
    const float *scales = a.x.scales + (u64)r * (e.hidden / 32);
    float gate[4] = {}, up[4] = {};
    bool shared = k == e.used;
    if (shared) {
        const signed char *const xs[1] = {x};
        const float *const ss[1] = {scales};
        float g[4][1] = {}, u[4][1] = {};
        q8_dots<4, 1>(e.shared_gate, i, xs, ss, g);
        q8_dots<4, 1>(e.shared_up, i, xs, ss, u);
        for (int j = 0; j < 4; j++) gate[j] = g[j][0], up[j] = u[j][0];
    } else {
        __syncthreads();
        u32 expert = e.picked[(u64)r * e.used + k];
        iq2_dots<4>(member(e.gate, expert), i, x, scales, tables, gate);
        iq2_dots<4>(member(e.up, expert), i, x, scales, tables, up);
    }
    float weight = shared ? 1.0f : e.weights[(u64)r * e.used + k];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float g = warp_sum(gate[j]), u = warp_sum(up[j]);
        if (lane == 0) values[threadIdx.x / 32 * 4 + j] = swiglu(g, u, shared ? e.shared_limit : e.limit) * weight;
    }
    __syncthreads();
    if (threadIdx.x < 32) quantise_warp(a.middle, ((u64)r * (e.used + 1) + k) * e.inner + blockIdx.x * 32, values[lane]);
}

// A row of Q2_K times a vector; a lane takes 16 columns of each of the four quarters of a half block.
__device__ __forceinline__ float q2_dot(const Matrix &m, u32 row, const signed char *x, const float *scales, const int *sums) {
    u32 lane = threadIdx.x % 32;
    float sum = 0.0f;
    for (u32 u = lane; u < m.cols / 64; u += 32) {
        u64 block = (u64)row * (m.cols / 256) + u / 4;
        u32 half = u % 4 / 2, part = u % 2;
        int4 w = stream16(m.codes + block * 64 + half * 32 + part * 16);
        const u8 *meta = m.scales + block * 20;
        u32 low = *(const u32 *)(meta + half * 8), high = *(const u32 *)(meta + half * 8 + 4);
        u32 dd = *(const u32 *)(meta + 16);
        u32 column = u / 4 * 256 + half * 128 + part * 16;
        float scaled = 0.0f, minimum = 0.0f;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            int4 v = *(const int4 *)(x + column + 32 * j);
            int4 q = make_int4(w.x >> (2 * j) & 0x03030303, w.y >> (2 * j) & 0x03030303, w.z >> (2 * j) & 0x03030303, w.w >> (2 * j) & 0x03030303);
            u32 s = (j < 2 ? low : high) >> (16 * (j % 2) + 8 * part) & 255;
            float of = scales[column / 32 + j];
            scaled += of * (float)(dot16(q, v) * (int)(s & 15));
            minimum += of * (float)(sums[column / 16 + 2 * j] * (int)(s >> 4));
        }
        sum += f16_to_f32((u16)dd) * scaled - f16_to_f32((u16)(dd >> 16)) * minimum;
    }
    return sum;
}

// A warp computes one value of the output: the shared expert's, then those of the chosen in order.
extern "C" __global__ void __launch_bounds__(256) experts8_out(const Experts8Args a) {
    const ExpertsArgs &e = a.e;
    u32 r = blockIdx.y, d = blockIdx.x * 8 + threadIdx.x / 32;
    invite();
    if (d < e.hidden) {
        prefetch_span(e.shared_down.codes + (u64)d * e.inner, e.inner);
        prefetch_span(e.shared_down.scales + (u64)d * (e.inner / 16), e.inner / 16);
    }
    await();
    if (d >= e.hidden) return;
    u64 first = (u64)r * (e.used + 1) * e.inner, at = first + (u64)e.used * e.inner;
    const signed char *const xs[1] = {a.middle.codes + at};
    const float *const ss[1] = {a.middle.scales + at / 32};
    float shared[1][1] = {};
    q8_dots<1, 1>(e.shared_down, d, xs, ss, shared);
    float y = shared[0][0];
#pragma unroll 6
    for (u32 k = 0; k < e.used; k++) {
        u64 at = first + (u64)k * e.inner;
        Matrix down = member(e.down, e.picked[(u64)r * e.used + k]);
        y += q2_dot(down, d, a.middle.codes + at, a.middle.scales + at / 32, a.middle.sums + at / 16);
    }
    y = warp_sum(y);
    if (threadIdx.x % 32 == 0) e.out[(u64)r * e.hidden + d] = y;
}
