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

// What a lane holds of 16 rows of weights: a block of two of them.
template <int F> struct Tile {
    Codes<F> a, b;
    __device__ __forceinline__ void begin(const Span &upper, const Span &lower, u32 block) {
        a.begin(upper, block, threadIdx.x % 4);
        b.begin(lower, block, threadIdx.x % 4);
    }
    __device__ __forceinline__ void fetch(const Span &upper, const Span &lower, u32 block, u32 s) {
        a.fetch(upper, block, s, threadIdx.x % 4);
        b.fetch(lower, block, s, threadIdx.x % 4);
    }
};

template <> struct Tile<OTHER> {
    Codes<OTHER> a, b;
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

__device__ __forceinline__ void copy_async(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(shared)), "l"(global) : "memory");
}

__device__ __forceinline__ void copy_word_async(void *shared, const void *global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((u32)__cvta_generic_to_shared(shared)), "l"(global) : "memory");
}

__device__ __forceinline__ void copies_begun() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int LEFT> __device__ __forceinline__ void copies_done() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// So many columns of 16 rows as a warp keeps in shared memory at a time: a segment, or half of one.
template <int F> struct Piece {
    static const u32 blocks = F == F16 ? 1 : 2, per_segment = 2 / blocks;
    static const u32 codes = blocks * Widths<F>::codes, scales = blocks * Widths<F>::scales;
    static const u32 bytes = 16 * (codes + scales);
};

// Bytes of the largest piece.
static const u32 WIDEST_PIECE = 16 * (512 + 32);

// One piece of a matrix: from this row and block on.
struct Part {
    const Matrix &m;
    u32 row, block;
};

// Asks for a piece. Rows beyond the last are the last.
template <int F> __device__ __forceinline__ void stage(u8 *room, const Part &of) {
    if (F == OTHER) return;
    u32 lane = threadIdx.x % 32, blocks = of.m.cols / 256, count = min(Piece<F>::blocks, blocks - of.block);
    u32 chunks = count * Widths<F>::codes / 16, words = count * Widths<F>::scales / 4;
    for (u32 i = lane; i < 16 * chunks; i += 32) {
        u32 r = i / chunks, at = i % chunks * 16;
        u64 first = (u64)min(of.row + r, of.m.rows - 1) * blocks + of.block;
        copy_async(room + r * Piece<F>::codes + (at ^ (r % 2 * Widths<F>::swap)), of.m.codes + first * Widths<F>::codes + at);
    }
    for (u32 i = lane; i < 16 * words; i += 32) {
        u32 r = i / words, at = i % words * 4;
        u64 first = (u64)min(of.row + r, of.m.rows - 1) * blocks + of.block;
        copy_word_async(room + 16 * Piece<F>::codes + r * Piece<F>::scales + at, of.m.scales + first * Widths<F>::scales + at);
    }
}

// A row of a piece that has come.
template <int F> __device__ __forceinline__ Span staged(const u8 *room, const Part &of, u32 r) {
    const u8 *scales = room + 16 * Piece<F>::codes + r * Piece<F>::scales;
    if (F == FP8) scales = of.m.scales + (u64)(min(of.row + r, of.m.rows - 1) / 128) * ((of.m.cols + 127) / 128) + 2 * of.block;
    return Span{room + r * Piece<F>::codes, scales, r % 2 * Widths<F>::swap};
}

// A piece times up to 8 N vectors; `x` as in `few_block`, at the piece's first block.
template <int F, int N> __device__ __forceinline__ void multiply_piece(const u8 *room, const Part &of, const u16 *const (&x)[N], const Iq2Table *table, float (&sum)[N][4]) {
    u32 g = threadIdx.x % 32 / 4, blocks = of.m.cols / 256;
    Span upper = staged<F>(room, of, g), lower = staged<F>(room, of, g + 8);
#pragma unroll
    for (u32 k = 0; k < Piece<F>::blocks; k++) {
        if (of.block + k >= blocks) break;
        Tile<F> tile;
        tile.begin(upper, lower, k);
#pragma unroll
        for (u32 s = 0; s < 4; s++) tile.fetch(upper, lower, k, s);
        const u16 *here[N];
#pragma unroll
        for (int n = 0; n < N; n++) here[n] = x[n] ? x[n] + 256 * k : nullptr;
        few_block<F, N>(of.m, tile, here, table, sum);
    }
}

template <int N> __device__ __forceinline__ void multiply_other(const Part &of, const u16 *const (&x)[N], float (&sum)[N][4]) {
    u32 g = threadIdx.x % 32 / 4;
    for (u32 block = of.block; block < min(of.block + 2, of.m.cols / 256); block++) {
        Tile<OTHER> tile;
        tile.a.row = min(of.row + g, of.m.rows - 1), tile.b.row = min(of.row + g + 8, of.m.rows - 1);
        tile.a.block = tile.b.block = block;
        const u16 *here[N];
#pragma unroll
        for (int n = 0; n < N; n++) here[n] = x[n] ? x[n] + 256 * (block - of.block) : nullptr;
        few_block<OTHER, N>(of.m, tile, here, nullptr, sum);
    }
}

// A warp's work: segments of tiles, one after another, `D` pieces ahead in `room`. `part(i)` says which the
// i-th segment is; what it says must be known when it is asked for.
template <int F, int D, class Which> __device__ __forceinline__ void begin_segments(u8 *room, u32 count, Which part) {
#pragma unroll
    for (u32 i = 0; i < D; i++) {
        if (i < count * Piece<F>::per_segment) {
            Part of = part(i / Piece<F>::per_segment);
            of.block += i % Piece<F>::per_segment;
            if (of.block < of.m.cols / 256) stage<F>(room + i * Piece<F>::bytes, of);
        }
        copies_begun();
    }
}

// The rest of it. `input(i, n)` is the lane's n-th vector of the i-th segment, from its first column, or null;
// `done(i, sums)` takes what has come out.
template <int F, int N, int D, class Which, class Input, class Done>
__device__ __forceinline__ void end_segments(u8 *room, u32 count, const Iq2Table *table, Which part, Input input, Done done) {
    const u32 pieces = Piece<F>::per_segment;
    for (u32 i = 0; i < count; i++) {
        float sum[N][4] = {};
        for (u32 p = 0; p < pieces; p++) {
            Part of = part(i);
            of.block += p;
            u8 *here = room + (i * pieces + p) % D * Piece<F>::bytes;
            const u16 *x[N];
#pragma unroll
            for (int n = 0; n < N; n++) {
                x[n] = input(i, n);
                if (x[n]) x[n] += (u64)of.block * 256;
            }
            copies_done<D - 1>();
            __syncwarp();
            if (F == OTHER)
                multiply_other<N>(of, x, sum);
            else if (of.block < of.m.cols / 256)
                multiply_piece<F == OTHER ? Q8_0 : F, N>(here, of, x, table, sum);
            __syncwarp();
            u32 next = i * pieces + p + D;
            if (next < count * pieces) {
                Part ahead = part(next / pieces);
                ahead.block += next % pieces;
                if (ahead.block < ahead.m.cols / 256) stage<F>(here, ahead);
            }
            copies_begun();
        }
        done(i, sum);
    }
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

// Warps that share a tile.
__device__ __forceinline__ u32 sharers(u32 cols) { return min(segments_of(cols), FEW_WARPS); }

// For a format that is known when the kernel is compiled, or for whichever there is.
static const int ANY = -2;

// What block `block` of a list does; every thread of it must call this.
template <int N, int F> __device__ __forceinline__ void half_products(const HalfProductsArgs &a, u32 block, uint4 *room_of_all) {
    u32 i = 0;
    while (i + 1 < a.count && a.products[i + 1].p.first_block <= block) i++;
    const HalfProduct &p = a.products[i];
    const Matrix m = p.p.m;
    u32 first = blockIdx.y * 8 * N, warp = threadIdx.x / 32;
    if (F == ANY && !p.x) {
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
    u32 tile = warp / share, lead = warp % share, row = ((block - p.p.first_block) * tiles + tile) * 16;
    u32 mine = tile < tiles && row < m.rows ? (segments - lead + share - 1) / share : 0;
    u8 *rooms = (u8 *)room_of_all, *room = rooms + warp * WIDEST_PIECE;
    float *partial = (float *)(rooms + FEW_WARPS * WIDEST_PIECE);
    auto part = [&](u32 i) { return Part{m, row, 2 * (lead + i * share)}; };
#define BODY(G) begin_segments<G, 1>(room, mine, part)
    FOR_CODES_OF(F, m.format, BODY)
#undef BODY
    await();
    // Tiles do not cross groups: a group's rows are a multiple of 16.
    u32 group = p.p.group_rows ? min(row, m.rows - 1) / p.p.group_rows : 0;
    const u16 *input[N];
#pragma unroll
    for (int n = 0; n < N; n++) {
        u32 r = first + 8 * n + threadIdx.x % 32 / 4;
        input[n] = r < a.rows ? p.x + (u64)r * p.p.x_stride + (u64)group * p.p.group_stride : nullptr;
    }
    auto vector = [&](u32, u32 n) { return input[n]; };
    auto done = [&](u32 i, const float (&sum)[N][4]) { put_segment<N>(partial + (tile * segments + lead + i * share) * 128 * N, sum); };
#define BODY(G) end_segments<G, N, 1>(room, mine, nullptr, part, vector, done)
    FOR_CODES_OF(F, m.format, BODY)
#undef BODY
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
    half_products<1, ANY>(a, blockIdx.x, shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 3) half_products_8_q8(const HalfProductsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    half_products<1, Q8_0>(a, blockIdx.x, shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_products_16(const HalfProductsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    half_products<2, ANY>(a, blockIdx.x, shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, 2) half_products_16_q8(const HalfProductsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    half_products<2, Q8_0>(a, blockIdx.x, shared_memory);
}
