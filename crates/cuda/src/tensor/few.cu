// Matrices times a few vectors, on tensor cores. A strip of 16 rows of weights is a tile of the work; its columns
// are cut into segments, which warps share. A sum is defined by the columns alone: within a segment one chain of
// tensor products in the order of the columns, then the segments in order. So a row of the batch gets the same
// bits here, among others, and in every other kernel: `one.cu` takes one row and `together.cu` a few, of Q8_0 and
// halves; what they do not know, up to 16 rows, is done here; `many.cu` and `hopper.cu` take more. How weights come
// is told in `pipe.cuh`.

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

// Every `share`th segment of a tile; the tile's input begins at `offset`.
template <int F> struct TileWalk {
    Strip<F> of;
    u32 segment, share, offset;
    __device__ __forceinline__ const Strip<F> &strip() const { return of; }
    __device__ __forceinline__ u32 column() const { return offset + segment * SEGMENT; }
    __device__ __forceinline__ void next() { segment += share; }
};

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
    u32 tile = warp / share, lead = warp % share, top = block * tiles * 16, row = min(top + tile * 16, m.rows - 1);
    u32 all = min(tiles, (m.rows + 15) / 16 - block * tiles), mine = tile < all ? (segments - lead + share - 1) / share : 0;
    // Tiles do not cross groups: a group's rows are a multiple of 16.
    u32 offset = p.p.group_rows < m.rows ? row / p.p.group_rows * p.p.group_stride : 0;
    u8 *rooms = (u8 *)room_of_all, *room = rooms + warp * ROOM;
    float *sums = (float *)(rooms + FEW_WARPS * ROOM); // [tiles][segments][count][16]
    const u16 *input[N];
#pragma unroll
    for (int n = 0; n < N; n++) input[n] = p.x + (u64)min(first + 8 * n + threadIdx.x % 32 / 4, a.rows - 1) * p.p.x_stride;
    auto done = [&](const auto &walk, const float (&sum)[N][4]) { put_segment<N>(sums + (tile * segments + walk.segment) * count * 16, sum, count); };
#define BODY(G)                                                                                                        \
    {                                                                                                              \
        Pipe<G, DEPTH<G>, TileWalk<G>> pipe(room, m.cols / 256, mine, {Strip<G>(m, row), lead, share, offset}); \
        pipe.begin();                                                                                              \
        await();                                                                                                   \
        pipe.template end<N>(input, done);                                                                      \
    }
    FOR_CODES_OF(F, m.format, BODY)
#undef BODY
    __syncthreads();
    float scale = unscale(m.format);
    for (u32 o = threadIdx.x; o < all * count * 16; o += blockDim.x) {
        // Neighbouring threads take neighbouring rows: they are stored together.
        u32 n = o / 16 / all, which = o / 16 % all, r = top + which * 16 + o % 16;
        if (r >= m.rows) continue;
        float y = 0.0f;
        for (u32 s = 0; s < segments; s++) y += sums[((which * segments + s) * count + n) * 16 + o % 16];
        y *= scale;
        u64 target = (u64)(first + n) * p.p.y_stride + r;
        if (p.p.y) p.p.y[target] = y;
        if (p.y) p.y[target] = half_of(y);
    }
}

#define FEW_KERNEL(NAME, VECTORS, FORMAT)                                                               \
    extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) NAME(const __grid_constant__ FewProductsArgs a) { \
        extern __shared__ uint4 shared_memory[];                                                         \
        invite();                                                                                        \
        half_products<VECTORS, FORMAT>(a, blockIdx.x, shared_memory);                                    \
    }

FEW_KERNEL(half_products_8, 1, ANY)
FEW_KERNEL(half_products_8_q8, 1, Q8_0)
FEW_KERNEL(half_products_16, 2, ANY)
FEW_KERNEL(half_products_16_q8, 2, Q8_0)
