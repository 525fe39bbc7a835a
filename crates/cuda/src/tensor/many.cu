// Matrices times many vectors, on tensor cores: a block of four warps takes 128 rows of weights and
// 8 N vectors. Each warp decodes its own 32 rows, straight into registers, and meets all vectors, which
// wait in shared memory. The chain of every sum is that of `few.cu`.

static const u32 MANY_WARPS = 4;
// 16 bytes of activations that a vector has of a block of columns, and one more, so that two
// neighbouring vectors lie in different banks.
static const u32 CHUNKS = 33;

// Asks for a block of 16 rows a while before it is read.
template <int F> __device__ __forceinline__ void expect_block(const Matrix &m, u32 row, u32 block) {
    const int bytes = Widths<F>::codes;
    u32 lane = threadIdx.x % 32;
    if (bytes < 256) return;
    const u8 *codes = m.codes + ((u64)min(row + lane / 2, m.rows - 1) * (m.cols / 256) + block) * bytes;
#pragma unroll
    for (int at = 0; at < bytes; at += 256) prefetch(codes + at + lane % 2 * 128);
}

// 16 rows of a matrix, as a warp's lanes read them from the card's memory.
template <int F> struct Rows {
    Span upper, lower;
    u32 first, second;
    __device__ __forceinline__ Rows(const Matrix &m, u32 row) {
        u32 g = threadIdx.x % 32 / 4;
        first = min(row + g, m.rows - 1), second = min(row + g + 8, m.rows - 1);
        upper = span_of<F>(m, first), lower = span_of<F>(m, second);
    }
    __device__ __forceinline__ void begin(Tile<F> &tile, u32 block) const { tile.begin(upper, lower, block), tile.fetch(upper, lower, block, 0); }
    __device__ __forceinline__ void fetch(Tile<F> &tile, u32 block, u32 s) const { tile.fetch(upper, lower, block, s); }
};

template <> struct Rows<OTHER> {
    u32 first, second;
    __device__ __forceinline__ Rows(const Matrix &m, u32 row) {
        u32 g = threadIdx.x % 32 / 4;
        first = min(row + g, m.rows - 1), second = min(row + g + 8, m.rows - 1);
    }
    __device__ __forceinline__ void begin(Tile<OTHER> &tile, u32 block) const { tile.a = {first, block}, tile.b = {second, block}; }
    __device__ __forceinline__ void fetch(Tile<OTHER> &, u32, u32) const {}
};

// Where a chunk lies: the four lanes of a row read chunks in different banks, whatever runs a format has.
__device__ __forceinline__ u32 place(u32 vector, u32 chunk) { return vector * CHUNKS + (chunk ^ ((chunk >> 3 & 3) << 1)); }

// The blocks' vectors: so many, and where each begins. Those beyond the count repeat the last.
template <int N> struct Vectors {
    const u16 *at[8 * N];
};

template <int N> __device__ __forceinline__ void copy_block(uint4 *stage, const Vectors<N> &vectors, u32 block) {
    for (u32 i = threadIdx.x; i < 8 * N * 32; i += 32 * MANY_WARPS)
        copy_async(stage + place(i / 32, i % 32), vectors.at[i / 32] + 256 * block + 8 * (i % 32));
    copies_begun();
}

// 16 rows of each of two matrices (which may be the same) times all vectors. `stage` has room for two
// blocks of the vectors; every thread of the block must call this.
template <int F, int N>
__device__ __forceinline__ void many_columns(const Matrix &upper, u32 upper_row, const Matrix &lower, u32 lower_row, const Vectors<N> &vectors, uint4 *stage, const Iq2Table *table, float (&total)[2][N][4]) {
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, blocks = upper.cols / 256;
    float sum[2][N][4] = {};
    Rows<F> upper_rows(upper, upper_row), lower_rows(lower, lower_row);
    copy_block<N>(stage, vectors, 0);
    for (u32 block = 0; block < blocks; block++) {
        uint4 *here = stage + (block % 2) * 8 * N * CHUNKS;
        Tile<F> tiles[2];
        upper_rows.begin(tiles[0], block), lower_rows.begin(tiles[1], block);
        if (block + 1 < blocks) {
            copy_block<N>(stage + ((block + 1) % 2) * 8 * N * CHUNKS, vectors, block + 1);
            expect_block<F>(upper, upper_row, block + 1);
            expect_block<F>(lower, lower_row, block + 1);
            copies_done<1>();
        } else {
            copies_done<0>();
        }
        __syncthreads();
#pragma unroll
        for (u32 s = 0; s < 4; s++) {
            u32 a[2][8], b[2][8], chunk = Codes<F>::start(s, t) / 8;
            if (s < 3) upper_rows.fetch(tiles[0], block, s + 1), lower_rows.fetch(tiles[1], block, s + 1);
            tiles[0].a.run(upper, table, s, t, a[0]);
            tiles[0].b.run(upper, table, s, t, b[0]);
            tiles[1].a.run(lower, table, s, t, a[1]);
            tiles[1].b.run(lower, table, s, t, b[1]);
#pragma unroll
            for (int n = 0; n < N; n++) {
                uint4 low = here[place(8 * n + g, chunk)], high = here[place(8 * n + g, chunk + 1)];
                mma_run(sum[0][n], a[0], b[0], low, high);
                mma_run(sum[1][n], a[1], b[1], low, high);
            }
        }
        if (block % 2 == 1 || block + 1 == blocks) {
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++) total[i][n][j] += sum[i][n][j], sum[i][n][j] = 0.0f;
        }
        __syncthreads(); // before the block after next comes into this stage
    }
}

template <int N> __device__ __forceinline__ void many_half_products(const HalfProductsArgs &a) {
    extern __shared__ uint4 stage[];
    __shared__ Vectors<N> vectors;
    enter();
    u32 i = 0;
    while (i + 1 < a.count && a.products[i + 1].p.first_block <= blockIdx.y) i++;
    const HalfProduct &p = a.products[i];
    const Matrix m = p.p.m;
    u32 first = blockIdx.x * 8 * N, warp = threadIdx.x / 32;
    if (!p.x) {
        // 32 rows of weights to a warp, as many as the tensor path takes.
        for (u32 row = (blockIdx.y - p.p.first_block) * 128 + warp; row < min((blockIdx.y - p.p.first_block + 1) * 128, m.rows); row += MANY_WARPS)
            for (u32 t = 0; t < 8 * N && first + t < a.rows; t += 8) {
#define BODY(F) product_row<F, 8>(p.p, row, first + t, a.rows)
                FOR_FORMAT(m.format, BODY)
#undef BODY
            }
        return;
    }
    u32 top = (blockIdx.y - p.p.first_block) * 128, row = top + 32 * warp;
    u32 group = p.p.group_rows ? min(top, m.rows - 1) / p.p.group_rows : 0;
    if (threadIdx.x < 8 * N)
        vectors.at[threadIdx.x] = p.x + (u64)min(first + threadIdx.x, a.rows - 1) * p.p.x_stride + (u64)group * p.p.group_stride;
    __syncthreads();
    float total[2][N][4] = {};
#define BODY(F) many_columns<F, N>(m, row, m, row + 16, vectors, stage, nullptr, total)
    FOR_CODES(m.format, BODY)
#undef BODY
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float scale = unscale(m.format);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u32 r = row + 16 * i + g + j / 2 * 8, vector = first + 8 * n + 2 * t + j % 2;
                if (r >= m.rows || vector >= a.rows) continue;
                float y = total[i][n][j] * scale;
                u64 target = (u64)vector * p.p.y_stride + r;
                if (p.p.y) p.p.y[target] = y;
                if (p.y) p.y[target] = half_of(y);
            }
}

extern "C" __global__ void __launch_bounds__(128, 2) half_products_many(const HalfProductsArgs a) { many_half_products<8>(a); }
