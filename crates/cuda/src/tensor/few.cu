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

// A list in the card's memory.
struct HalfProductsArgs {
    const HalfProduct *products;
    u32 count;
    u32 rows; // of the batch
};

// A list that comes with the launch: reading it waits for nothing.
static const u32 MOST_PRODUCTS = 8;

struct FewProductsArgs {
    HalfProduct products[MOST_PRODUCTS];
    u32 count;
    u32 rows; // of the batch
};

__device__ __forceinline__ u32 segments_of(u32 cols) { return (cols + SEGMENT - 1) / SEGMENT; }

// The activations of one run of columns for 8 vectors, as the tensor product wants them.
struct Runs {
    uint4 low, high;
    __device__ __forceinline__ void load(const u16 *x) { low = *(const uint4 *)x, high = *((const uint4 *)x + 1); }
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

// As many activations as are asked for at once: there are no registers for more. `x` are the lane's vectors
// in each group of 8, at a block; lanes whose vector does not exist take another one's, and what comes out
// is not looked at.
template <int F, int N> struct Inputs {
    static const u32 together = N == 1 && sizeof(Tile<F>) < 192 ? 4 : 2;
    Runs runs[N][together];
    __device__ __forceinline__ void load(const u16 *const (&x)[N], u32 first) {
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (u32 s = 0; s < together; s++) runs[n][s].load(x[n] + Codes<F>::start(first + s, threadIdx.x % 4));
    }
};

// A run of 16 rows of weights on its way from shared memory: what must be waited for is asked for one run
// ahead, because nothing moves across a tensor product that the compiler could move.
template <int F> struct Coming {
    __device__ __forceinline__ void ask(const Tile<F> &, u32, u32) {}
    __device__ __forceinline__ void take(const Matrix &m, const Tile<F> &tile, u32 s, u32 (&a)[8], u32 (&b)[8]) const {
        tile.a.run(m, nullptr, s, threadIdx.x % 4, a);
        tile.b.run(m, nullptr, s, threadIdx.x % 4, b);
    }
};

template <> struct Coming<IQ2_XXS> {
    Codes<IQ2_XXS>::Looked a, b;
    __device__ __forceinline__ void ask(const Tile<IQ2_XXS> &tile, u32 column, u32 s) { a = tile.a.look(column, s), b = tile.b.look(column, s); }
    __device__ __forceinline__ void take(const Matrix &, const Tile<IQ2_XXS> &tile, u32 s, u32 (&wa)[8], u32 (&wb)[8]) const {
        tile.a.finish(a, s, wa);
        tile.b.finish(b, s, wb);
    }
};

// One block of 256 columns, whose first inputs are there; `fetch` gets the codes of a run.
template <int F, int N, class Fetch>
__device__ __forceinline__ void few_block(const Matrix &m, Tile<F> &tile, const u16 *const (&x)[N], Inputs<F, N> &inputs, u32 column, float (&sum)[N][4], Fetch fetch) {
    const u32 together = Inputs<F, N>::together;
    Coming<F> coming[2];
    fetch(0);
    coming[0].ask(tile, column, 0);
#pragma unroll
    for (u32 s = 0; s < 4; s++) {
        if (s > 0 && s % together == 0) inputs.load(x, s);
        if (s < 3) fetch(s + 1), coming[(s + 1) % 2].ask(tile, column, s + 1);
        u32 a[8], b[8];
        coming[s % 2].take(m, tile, s, a, b);
#pragma unroll
        for (int n = 0; n < N; n++) mma_run(sum[n], a, b, inputs.runs[n][s % together].low, inputs.runs[n][s % together].high);
    }
}

// ------------------------------------------------------------------ weights on their way

__device__ __forceinline__ void copy_async(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}

__device__ __forceinline__ void copy_word_async(void *shared, const void *global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}

__device__ __forceinline__ void copies_begun() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int LEFT> __device__ __forceinline__ void copies_done() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// 16 rows of weights, from their first column. Rows beyond the matrix's last are that.
template <int F> struct Strip {
    const u8 *codes, *scales;
    u32 last;
    __device__ __forceinline__ Strip(const Matrix &m, u32 row) {
        Span span = span_of<F>(m, row);
        codes = span.codes, scales = span.scales, last = m.rows - 1 - row;
    }
};

template <> struct Strip<OTHER> {
    Matrix m;
    u32 row;
    __device__ __forceinline__ Strip(const Matrix &of, u32 first) : m(of), row(first) {}
};

// So many columns of 16 rows as a warp keeps in shared memory at a time: half a segment, or, of few bits, a
// whole one. What scales a row is copied in chunks of 16 bytes, so it may begin within the first; rows of 80
// bytes instead of 64 lie in different banks.
template <int F> struct Piece {
    static const u32 blocks = Widths<F>::codes > 64 ? 1 : 2, per_segment = 2 / blocks;
    static const u32 codes = blocks * Widths<F>::codes;
    static const u32 scales = F == Q2_K ? 80 : (blocks * Widths<F>::scales + 15) / 16 * 16 + (Widths<F>::scales % 16 ? 16 : 0);
    static const u32 bytes = 16 * (codes + scales);
};

// What a warp has for the pieces of one format, and how many of them fit.
static const u32 ROOM = 16 * 2 * (256 + 16);
template <int F> constexpr int DEPTH = ROOM / Piece<F>::bytes < 4 ? ROOM / Piece<F>::bytes : 4;
template <> constexpr int DEPTH<OTHER> = 1;

// Where what scales a row of a piece begins.
template <int F> __device__ __forceinline__ const u8 *scales_at(const Strip<F> &of, u32 r, u32 blocks, u32 block) {
    return of.scales + (u64)min(r, of.last) * (blocks * Widths<F>::scales) + block * Widths<F>::scales;
}

// Asks for the piece of a strip, whose matrix has so many blocks of columns, that begins with `block`.
template <int F> __device__ __forceinline__ void stage(u8 *room, const Strip<F> &of, u32 blocks, u32 block) {
    const u32 chunks = Piece<F>::codes / 16, lines = 32 / chunks;
    u32 lane = threadIdx.x % 32, line = lane / chunks, at = lane % chunks * 16;
    u32 here = min(Piece<F>::blocks, blocks - block);
    const u8 *codes = of.codes + block * Widths<F>::codes + at;
    if (at < here * Widths<F>::codes)
#pragma unroll
        for (u32 r = 0; r < 16; r += lines)
            copy_async(room + (line + r) * Piece<F>::codes + (at ^ ((line + r) % 2 * Widths<F>::swap)), codes + (u64)min(line + r, of.last) * (blocks * Widths<F>::codes));
    if constexpr (Piece<F>::scales > 0) {
        const u32 parts = F == Q2_K ? 4 : Piece<F>::scales / 16;
#pragma unroll
        for (u32 k = 0; k < parts; k += 2) {
            u32 i = lane + 16 * k, r = i / parts, part = i % parts * 16;
            const u8 *scales = scales_at<F>(of, r, blocks, block);
            u32 skew = Widths<F>::scales % 16 ? (u32)(u64)scales % 16 : 0;
            if (r < 16 && part < skew + here * Widths<F>::scales) copy_async(room + 16 * Piece<F>::codes + r * Piece<F>::scales + part, scales - skew + part);
        }
    }
}

// A row of a piece that has come.
template <int F> __device__ __forceinline__ Span staged(const u8 *room, const Strip<F> &of, u32 r, u32 blocks, u32 block) {
    const u8 *scales = room + 16 * Piece<F>::codes + r * Piece<F>::scales;
    if (Widths<F>::scales % 16) scales += (u32)(u64)scales_at<F>(of, r, blocks, block) % 16;
    if (F == FP8) scales = of.scales + 2 * block;
    return Span{room + r * Piece<F>::codes, scales, r % 2 * Widths<F>::swap};
}

// A piece times up to 8 N vectors; `x` as in `Inputs`, at the piece's first column.
template <int F, int N>
__device__ __forceinline__ void multiply_piece(const u8 *room, const Strip<F> &of, u32 blocks, u32 block, const u16 *const (&x)[N], Inputs<F, N> &inputs, u32 column, float (&sum)[N][4]) {
    const Matrix not_needed = {};
    u32 g = threadIdx.x % 32 / 4, here = min(Piece<F>::blocks, blocks - block);
    Span upper = staged<F>(room, of, g, blocks, block), lower = staged<F>(room, of, g + 8, blocks, block);
#pragma unroll 1
    for (u32 k = 0; k < here; k++) {
        Tile<F> tile;
        tile.begin(upper, lower, k);
        const u16 *columns[N];
#pragma unroll
        for (int n = 0; n < N; n++) columns[n] = x[n] + 256 * k;
        if (Piece<F>::blocks > 1 && k > 0) inputs.load(columns, 0);
        few_block<F, N>(not_needed, tile, columns, inputs, column, sum, [&](u32 s) { tile.fetch(upper, lower, k, s); });
    }
}

template <int N> __device__ __forceinline__ void multiply_other(const Strip<OTHER> &of, u32 blocks, u32 block, const u16 *const (&x)[N], float (&sum)[N][4]) {
    u32 g = threadIdx.x % 32 / 4, here = min(Piece<OTHER>::blocks, blocks - block);
    for (u32 k = 0; k < here; k++) {
        Tile<OTHER> tile;
        tile.a.row = min(of.row + g, of.m.rows - 1), tile.b.row = min(of.row + g + 8, of.m.rows - 1);
        tile.a.block = tile.b.block = block + k;
        const u16 *columns[N];
#pragma unroll
        for (int n = 0; n < N; n++) columns[n] = x[n] + 256 * k;
        Inputs<OTHER, N> inputs;
        inputs.load(columns, 0);
        few_block<OTHER, N>(of.m, tile, columns, inputs, 0, sum, [](u32) {});
    }
}

// A warp's work: segments of strips, one after another, `D` pieces ahead. A walk says of a segment which it
// is: its strip, its number among the strip's, and where its input begins; `next` goes to the next.
template <int F, int D, class Walk> struct Pipe {
    u8 *room;
    u32 blocks, count; // of the matrices' columns; of segments
    Walk here, ahead;
    u32 asked, slot;

    __device__ __forceinline__ Pipe(u8 *room, u32 blocks, u32 count, const Walk &walk) : room(room), blocks(blocks), count(count), here(walk), ahead(walk), asked(0), slot(0) {}

    __device__ __forceinline__ void ask(u32 to) {
        const u32 pieces = Piece<F>::per_segment;
        if (asked < count * pieces) {
            u32 block = 2 * ahead.segment + asked % pieces * Piece<F>::blocks;
            if constexpr (F != OTHER)
                if (block < blocks) stage<F>(room + to * Piece<F>::bytes, ahead.strip(), blocks, block);
            asked++;
            if (asked % pieces == 0) ahead.next();
        }
        copies_begun();
    }

    // Asks for the first weights; what they are multiplied with need not be there yet.
    __device__ __forceinline__ void begin() {
#pragma unroll
        for (u32 i = 0; i < D; i++) ask(i);
    }

    // `input` are the lane's vectors, `column` its part of a table; `done(walk, sums)` takes what has come out of a segment.
    template <int N, class Done> __device__ __forceinline__ void end(const u16 *const (&input)[N], u32 column, Done done) {
        for (u32 i = 0; i < count; i++) {
            float sum[N][4] = {};
#pragma unroll 1
            for (u32 p = 0; p < Piece<F>::per_segment; p++) {
                u32 block = 2 * here.segment + Piece<F>::blocks * p;
                const u16 *x[N];
#pragma unroll
                for (int n = 0; n < N; n++) x[n] = input[n] + here.column() + 256 * Piece<F>::blocks * p;
                if constexpr (F == OTHER) {
                    multiply_other<N>(here.strip(), blocks, block, x, sum);
                } else if (block < blocks) {
                    Inputs<F, N> inputs;
                    inputs.load(x, 0);
                    copies_done<D - 1>();
                    __syncwarp();
                    multiply_piece<F, N>(room + slot * Piece<F>::bytes, here.strip(), blocks, block, x, inputs, column, sum);
                    __syncwarp();
                }
                ask(slot);
                slot = slot + 1 < D ? slot + 1 : 0;
            }
            done(here, sum);
            here.next();
        }
    }
};

// Every `step`th segment of one strip.
template <int F> struct StripWalk {
    Strip<F> of;
    u32 segment, step;
    __device__ __forceinline__ Strip<F> strip() const { return of; }
    __device__ __forceinline__ u32 column() const { return segment * SEGMENT; }
    __device__ __forceinline__ void next() { segment += step; }
};

// Puts a segment's sums, of the first `count` vectors, to where all segments of the tile are added:
// [count][16 rows].
template <int N> __device__ __forceinline__ void put_segment(float *at, const float (&sum)[N][4], u32 count) {
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (u32 j = 0; j < 2; j++)
            if (8 * n + 2 * t + j < count) {
                float *vector = at + (8 * n + 2 * t + j) * 16;
                vector[g] = sum[n][j], vector[g + 8] = sum[n][2 + j];
            }
}

// ------------------------------------------------------------------ products

// Warps that share a tile.
__device__ __forceinline__ u32 sharers(u32 cols) { return min(segments_of(cols), FEW_WARPS); }

// For a format that is known when the kernel is compiled, or for whichever there is.
static const int ANY = -2;

// What block `block` of a list does; every thread of it must call this.
template <int N, int F> __device__ __forceinline__ void half_products(const FewProductsArgs &a, u32 block, uint4 *room_of_all) {
    u32 i = 0;
    #pragma unroll 1
    for (u32 k = 1; k < a.count; k++)
        if (a.products[k].p.first_block <= block) i = k;
    const HalfProduct &p = a.products[i];
    const Matrix m = p.p.m;
    u32 first = blockIdx.y * 8 * N, warp = threadIdx.x / 32;
    block -= p.p.first_block;
    if (F == ANY && !p.x) {
        await();
        u32 row = block * FEW_WARPS + warp;
        if (row < m.rows)
            for (u32 t = 0; t < 8 * N && first + t < a.rows; t++) {
#define BODY(F) product_row<F, 1>(p.p, row, first + t, a.rows)
                FOR_FORMAT(m.format, BODY)
#undef BODY
            }
        return;
    }
    u32 segments = segments_of(m.cols), share = sharers(m.cols), tiles = FEW_WARPS / share, count = min(8u * N, a.rows - first);
    u32 tile = warp / share, lead = warp % share, row = (block * tiles + tile) * 16;
    u32 mine = tile < tiles && row < m.rows ? (segments - lead + share - 1) / share : 0;
    u8 *rooms = (u8 *)room_of_all, *room = rooms + warp * ROOM;
    float *sums = (float *)(rooms + FEW_WARPS * ROOM); // [tiles][segments][count][16]
    // Tiles do not cross groups: a group's rows are a multiple of 16.
    u32 group = p.p.group_rows < m.rows ? min(row, m.rows - 1) / p.p.group_rows : 0;
    const u16 *input[N];
#pragma unroll
    for (int n = 0; n < N; n++) input[n] = p.x + (u64)min(first + 8 * n + threadIdx.x % 32 / 4, a.rows - 1) * p.p.x_stride + (u64)group * p.p.group_stride;
    auto done = [&](const auto &walk, const float (&sum)[N][4]) { put_segment<N>(sums + (tile * segments + walk.segment) * count * 16, sum, count); };
#define BODY(G)                                                                                             \
    {                                                                                                       \
        Pipe<G, DEPTH<G>, StripWalk<G>> pipe(room, m.cols / 256, mine, {Strip<G>(m, min(row, m.rows - 1)), lead, share}); \
        pipe.begin();                                                                                       \
        await();                                                                                            \
        pipe.template end<N>(input, 0, done);                                                               \
    }
    FOR_CODES_OF(F, m.format, BODY)
#undef BODY
    __syncthreads();
    float scale = unscale(m.format);
    for (u32 o = threadIdx.x; o < tiles * count * 16; o += blockDim.x) {
        // Neighbouring threads take neighbouring rows: they are stored together.
        u32 n = o / 16 / tiles, which = o / 16 % tiles, r = (block * tiles + which) * 16 + o % 16;
        if (r >= m.rows) continue;
        float y = 0.0f;
        for (u32 s = 0; s < segments; s++) y += sums[((which * segments + s) * count + n) * 16 + o % 16];
        y *= scale;
        u64 target = (u64)(first + n) * p.p.y_stride + r;
        if (p.p.y) p.p.y[target] = y;
        if (p.y) p.y[target] = half_of(y);
    }
}

#define FEW_KERNEL(NAME, VECTORS, FORMAT, BLOCKS)                                                            \
    extern "C" __global__ void __launch_bounds__(256, RESIDENT(BLOCKS)) NAME(const __grid_constant__ FewProductsArgs a) { \
        extern __shared__ uint4 shared_memory[];                                                               \
        invite();                                                                                              \
        half_products<VECTORS, FORMAT>(a, blockIdx.x, shared_memory);                                          \
    }

FEW_KERNEL(half_products_8, 1, ANY, 2)
FEW_KERNEL(half_products_8_q8, 1, Q8_0, 3)
FEW_KERNEL(half_products_16, 2, ANY, 2)
FEW_KERNEL(half_products_16_q8, 2, Q8_0, 2)
