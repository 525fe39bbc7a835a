// Matrices times a few vectors, on tensor cores. 16 rows of weights make a tile; its columns are cut
// into segments, which warps share. A sum is defined by the columns alone: within a segment one chain of
// tensor products in the order of the columns, then the segments in order. So a row of the batch gets
// the same bits here, among others, and in `many.cu`.

// Columns of a segment: two blocks of 256.
static const u32 SEGMENT = 512;
static const u32 FEW_WARPS = 8;

struct HalfProduct {
    Product p;    // its floats are not read where there are halves
    const u16 *x; // the input as halves; null: the format or the shape has no tensor product
    u16 *y;       // the output as halves; null: not wanted
};

struct HalfProductsArgs {
    const HalfProduct *products;
    u32 count;
    u32 rows; // of the batch
};

__device__ __forceinline__ u32 segments_of(u32 cols) { return (cols + SEGMENT - 1) / SEGMENT; }

// The activations of one run of columns for 8 vectors, as the tensor product wants them.
struct Runs {
    uint4 low, high;
    __device__ __forceinline__ void load(const u16 *x, bool there) {
        low = there ? *(const uint4 *)x : make_uint4(0, 0, 0, 0);
        high = there ? *((const uint4 *)x + 1) : make_uint4(0, 0, 0, 0);
    }
};

// A run of two rows of weights with a run of activations.
__device__ __forceinline__ void mma_run(float (&d)[4], const u32 (&a)[8], const u32 (&b)[8], uint4 low, uint4 high) {
    mma(d, a[0], b[0], a[1], b[1], low.x, low.y);
    mma(d, a[2], b[2], a[3], b[3], low.z, low.w);
    mma(d, a[4], b[4], a[5], b[5], high.x, high.y);
    mma(d, a[6], b[6], a[7], b[7], high.z, high.w);
}

// What a lane holds of 16 rows of weights.
template <int F> struct Tile {
    Codes<F> a, b;
    __device__ __forceinline__ void begin(const Matrix &m, u32 row, u32 block) {
        u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        a.begin(m, min(row + g, m.rows - 1), block, t);
        b.begin(m, min(row + g + 8, m.rows - 1), block, t);
    }
    __device__ __forceinline__ void fetch(const Matrix &m, u32 row, u32 block, u32 s) {
        u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        a.fetch(m, min(row + g, m.rows - 1), block, s, t);
        b.fetch(m, min(row + g + 8, m.rows - 1), block, s, t);
    }
    __device__ __forceinline__ void load(const Matrix &m, u32 row, u32 block) {
        begin(m, row, block);
#pragma unroll
        for (u32 s = 0; s < 4; s++) fetch(m, row, block, s);
    }
};

// One block of 256 columns. `x` is the lane's vector in each group of 8, at the block; null: there is none.
template <int F, int N> __device__ __forceinline__ void few_block(const Matrix &m, const Tile<F> &tile, const u16 *const (&x)[N], const Iq2Table *table, float (&sum)[N][4]) {
    // As many activations are asked for at once as there are registers for.
    const u32 together = N == 1 && sizeof(Tile<F>) < 192 ? 4 : 2;
    u32 t = threadIdx.x % 4;
#pragma unroll
    for (u32 first = 0; first < 4; first += together) {
        Runs runs[N][together];
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (u32 s = 0; s < together; s++) runs[n][s].load(x[n] + Codes<F>::start(first + s, t), x[n] != nullptr);
#pragma unroll
        for (u32 s = 0; s < together; s++) {
            u32 a[8], b[8];
            tile.a.run(m, table, first + s, t, a);
            tile.b.run(m, table, first + s, t, b);
#pragma unroll
            for (int n = 0; n < N; n++) mma_run(sum[n], a, b, runs[n][s].low, runs[n][s].high);
        }
    }
}

// Asks for a block of 16 rows, where it is wider than what the warps of a tile can hold.
template <int F> __device__ __forceinline__ void expect_block(const Matrix &m, u32 row, u32 block) {
    const int bytes = F == F16 ? 512 : F == Q8_0 || F == FP8 ? 256 : 0;
    u32 lane = threadIdx.x % 32;
    const u8 *codes = m.codes + ((u64)min(row + lane / 2, m.rows - 1) * (m.cols / 256) + block) * bytes;
#pragma unroll
    for (int at = 0; at < bytes; at += 256) prefetch(codes + at + lane % 2 * 128);
}

// Puts a segment's sums to where all segments of the tile are added.
template <int N> __device__ __forceinline__ void put_segment(float *at, const float (&sum)[N][4]) {
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < N; n++) {
        float *row = at + g * 8 * N + 8 * n + 2 * t;
        row[0] = sum[n][0], row[1] = sum[n][1];
        row[64 * N] = sum[n][2], row[64 * N + 1] = sum[n][3];
    }
}

// Segments `first`, `first + step`, ... of 16 rows times up to 8 N vectors. The first weights are asked
// for before the input is there: `ready` waits for it.
template <int F, int N, class Ready>
__device__ __forceinline__ void few_segments(const Matrix &m, u32 row, u32 first, u32 step, const u16 *const (&input)[N], const Iq2Table *table, float *partial, Ready ready) {
    u32 blocks = m.cols / 256;
    Tile<F> tile;
    if (2 * first < blocks) tile.load(m, row, 2 * first);
    if (2 * first + 1 < blocks) expect_block<F>(m, row, 2 * first + 1);
    ready();
    for (u32 segment = first; 2 * segment < blocks; segment += step) {
        float sum[N][4] = {};
        for (u32 block = 2 * segment; block < min(2 * segment + 2, blocks); block++) {
            if (block > 2 * first) tile.load(m, row, block);
            const u16 *x[N];
#pragma unroll
            for (int n = 0; n < N; n++) x[n] = input[n] ? input[n] + 256 * block : nullptr;
            few_block<F, N>(m, tile, x, table, sum);
        }
        put_segment<N>(partial + segment * 128 * N, sum);
    }
}

// Warps that share a tile.
__device__ __forceinline__ u32 sharers(u32 cols) { return min(segments_of(cols), FEW_WARPS); }

// What block `block` of a list does; every thread of it must call this.
template <int N> __device__ __forceinline__ void half_products(const HalfProductsArgs &a, u32 block, float *partial) {
    u32 i = 0;
    while (i + 1 < a.count && a.products[i + 1].p.first_block <= block) i++;
    const HalfProduct &p = a.products[i];
    const Matrix m = p.p.m;
    u32 first = blockIdx.y * 8 * N, warp = threadIdx.x / 32;
    if (!p.x) {
        await();
        u32 row = (block - p.p.first_block) * FEW_WARPS + warp;
        if (row < m.rows)
            for (u32 t = 0; t < 8 * N && first + t < a.rows; t++) {
#define BODY(F) product_row<F, 1>(p.p, row, first + t, a.rows)
                FOR_FORMAT(m.format, BODY)
#undef BODY
            }
        return;
    }
    u32 segments = segments_of(m.cols), share = sharers(m.cols), tiles = FEW_WARPS / share;
    u32 tile = warp / share, row = ((block - p.p.first_block) * tiles + tile) * 16;
    // Tiles do not cross groups: a group's rows are a multiple of 16.
    u32 group = p.p.group_rows ? min(row, m.rows - 1) / p.p.group_rows : 0;
    const u16 *input[N];
#pragma unroll
    for (int n = 0; n < N; n++) {
        u32 r = first + 8 * n + threadIdx.x % 32 / 4;
        input[n] = r < a.rows ? p.x + (u64)r * p.p.x_stride + (u64)group * p.p.group_stride : nullptr;
    }
    auto ready = [] { await(); };
    if (tile < tiles && row < m.rows) {
#define BODY(F) few_segments<F, N>(m, row, warp % share, share, input, nullptr, partial + tile * segments * 128 * N, ready)
        FOR_CODES(m.format, BODY)
#undef BODY
    } else {
        await();
    }
    __syncthreads();
    float scale = unscale(m.format);
    for (u32 o = threadIdx.x; o < tiles * 128 * N; o += blockDim.x) {
        // Neighbouring threads take neighbouring rows: they are stored together.
        u32 which = o / (128 * N), of = o % 16, n = o % (128 * N) / 16;
        u32 r = ((block - p.p.first_block) * tiles + which) * 16 + of;
        if (r >= m.rows || first + n >= a.rows) continue;
        float y = 0.0f;
        for (u32 s = 0; s < segments; s++) y += partial[(which * segments + s) * 128 * N + of * 8 * N + n];
        y *= scale;
        u64 target = (u64)(first + n) * p.p.y_stride + r;
        if (p.p.y) p.p.y[target] = y;
        if (p.y) p.y[target] = half_of(y);
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) half_products_8(const HalfProductsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    half_products<1>(a, blockIdx.x, (float *)shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_products_16(const HalfProductsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    half_products<2>(a, blockIdx.x, (float *)shared_memory);
}
