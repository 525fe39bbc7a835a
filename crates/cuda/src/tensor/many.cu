// Matrices times many vectors, on tensor cores: a block of four warps takes 128 rows of weights and 8 N
// vectors. Both come into shared memory a few runs of columns before they are needed. Each warp decodes its
// own 32 rows, straight into registers, and meets all vectors. The chain of every sum is that of `few.cu`,
// or, of whole numbers, that of blocks of 256 columns.

static const u32 MANY_WARPS = 4;
// Rows of a block that are neighbours in a matrix: half of its rows, the other half may be another matrix's.
static const u32 HALF_ROWS = 64;

// The rows' codes and scales in shared memory: a block of 256 columns. Where a run has codes of its own,
// they come and go run by run; otherwise with the first.
template <int F> struct Shelf {
    static const bool by_runs = F == F16 || F == Q8_0 || F == FP8;
    static const u32 codes = Widths<F>::codes, scales = Widths<F>::scales, piece = by_runs ? codes / 4 : codes;
    static const u32 bytes = 2 * HALF_ROWS * (codes + scales);
};

// What a thread brings of the weights: a quarter of 64 bytes of two rows in either half, so that neighbouring
// threads read and write together, and with the other lanes of its warp the scales of 32 rows. Rows beyond the
// last are the last.
template <int F> struct Supply {
    const u8 *codes[4], *scales;
    u32 first, last, blocks; // of the rows of scales
    u8 *room;
    __device__ __forceinline__ Supply(const Matrix &upper, u32 upper_row, const Matrix &lower, u32 lower_row, u8 *room) : blocks(upper.cols / 256), room(room) {
        u32 i = threadIdx.x;
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const Matrix &m = j < 2 ? upper : lower;
            u32 row = (j < 2 ? upper_row : lower_row) + i / 4 + j % 2 * 32;
            codes[j] = Tiled<F>(m, min(row, m.rows - 1), 0).codes + i % 4 * 16;
        }
        const Matrix &m = i < HALF_ROWS ? upper : lower;
        first = (i < HALF_ROWS ? upper_row : lower_row) + i % HALF_ROWS / 32 * 32, last = m.rows - 1;
        scales = m.codes + 16 * Shelf<F>::codes;
    }
    // The runs are asked for in their order, those of one block after those of the other.
    __device__ __forceinline__ void bring(u32 s) {
        const u32 from = Shelf<F>::by_runs ? s * Shelf<F>::piece : 0;
        // A run of an odd row may lie where another one of an even row would.
        u32 swap = threadIdx.x / 4 % 2 * (Widths<F>::swap & 64);
        u8 *row = room + threadIdx.x / 4 * Shelf<F>::codes + threadIdx.x % 4 * 16;
        if (Shelf<F>::by_runs || s == 0) {
#pragma unroll
            for (u32 at = from; at < from + Shelf<F>::piece; at += 64)
#pragma unroll
                for (u32 j = 0; j < 4; j++) copy_async(row + j * 32 * Shelf<F>::codes + (at ^ swap), codes[j] + (at ^ swap));
        }
        if (s == 0) bring_scales();
        if (s != 3) return;
#pragma unroll
        for (u32 j = 0; j < 4; j++) codes[j] += TILE_BYTES<F>;
        scales += TILE_BYTES<F>;
    }
    // Words side by side, whichever rows they belong to.
    __device__ __forceinline__ void bring_scales() {
        if constexpr (Shelf<F>::scales > 0) {
            const u32 width = Shelf<F>::scales % 16 ? 4 : 16, words = Shelf<F>::scales / width;
            u8 *to = room + 2 * HALF_ROWS * Shelf<F>::codes + threadIdx.x / 32 * 32 * Shelf<F>::scales;
#pragma unroll
            for (u32 p = 0; p < words; p++) {
                u32 word = 32 * p + threadIdx.x % 32;
                u32 row = min(first + word / words, last);
                const u8 *of = scales + (u64)(row / 16) * blocks * TILE_BYTES<F> + row % 16 * Shelf<F>::scales + word % words * width;
                if (width == 16)
                    copy_async(to + word * width, of);
                else
                    copy_word_async(to + word * width, of);
            }
        }
    }
};

template <> struct Supply<OTHER> {
    __device__ __forceinline__ Supply(const Matrix &, u32, const Matrix &, u32, u8 *) {}
    __device__ __forceinline__ void bring(u32) {}
};

// What a thread brings of the vectors. In shared memory they lie as the tensor cores' lanes want them:
// [run][half of a run][eight vectors][lane]. The lanes of second halves trade places, so that threads that
// write together have different banks.
template <int F, int N> struct Activations {
    const u16 *from[N / 2];
    uint4 *to;
    template <class Input> __device__ __forceinline__ Activations(Input input, uint4 *ring) {
        u32 i = threadIdx.x, t = i / 2 % 4, half = i % 2;
#pragma unroll
        for (u32 j = 0; j < N / 2; j++) from[j] = input(i / 8 + 16 * j) + Codes<F>::start(0, t) + 8 * half;
        to = ring + (half * N + i / 64) * 32 + ((i / 8 % 8 * 4 + t) ^ (half * 4));
    }
    __device__ __forceinline__ void bring(u32 s) {
#pragma unroll
        for (u32 j = 0; j < N / 2; j++) copy_async(to + (2 * s * N + 2 * j) * 32, from[j] + Codes<F>::start(s, 0));
#pragma unroll
        for (u32 j = 0; j < N / 2; j++)
            if (s == 3) from[j] += 256;
    }
};

// A warp's rows: 16 of either half, as its lanes read them.
template <int F> struct Rows {
    Span<F> at[2];
    __device__ __forceinline__ Rows(const Matrix &upper, u32 upper_row, const Matrix &lower, u32 lower_row, const u8 *room)
        : at{half(upper, upper_row, 0, room), half(lower, lower_row, HALF_ROWS, room)} {}
    __device__ __forceinline__ static Span<F> half(const Matrix &m, u32 first, u32 row, const u8 *room) {
        u32 within = threadIdx.x / 32 * 16, codes = shared_address(room);
        const u8 *beside = F == FP8 ? scales_of_128(m, min(first + within, m.rows - 1)) : nullptr;
        return Span<F>(codes, codes + 2 * HALF_ROWS * Shelf<F>::codes, row + within + threadIdx.x % 32 / 4, Codes<F>::lane(threadIdx.x % 4), beside);
    }
    __device__ __forceinline__ void begin(Tile<F> (&tiles)[2], u32 block) const {
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            Span<F> span = at[i];
            if (F == FP8) span.beside += 2 * block;
            tiles[i].begin(span);
        }
    }
    __device__ __forceinline__ void fetch(Tile<F> (&tiles)[2], u32 s) const {
#pragma unroll
        for (u32 i = 0; i < 2; i++) tiles[i].fetch(at[i], s);
    }
};

template <> struct Rows<OTHER> {
    u32 row[2][2];
    __device__ __forceinline__ Rows(const Matrix &upper, u32 upper_row, const Matrix &lower, u32 lower_row, const u8 *) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 within = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i % 2 * 8;
            row[i / 2][i % 2] = min((i < 2 ? upper_row : lower_row) + within, (i < 2 ? upper : lower).rows - 1);
        }
    }
    __device__ __forceinline__ void begin(Tile<OTHER> (&tiles)[2], u32 block) const {
#pragma unroll
        for (u32 i = 0; i < 2; i++) tiles[i].a = {row[i][0], block}, tiles[i].b = {row[i][1], block};
    }
    __device__ __forceinline__ void fetch(Tile<OTHER> (&)[2], u32) const {}
};

// A run of 32 rows of weights with the same run of all vectors. Products that follow each other belong to
// different sums: none waits for the one before.
template <int N> __device__ __forceinline__ void multiply_run(float (&sum)[2][N][4], const u32 (&a)[2][8], const u32 (&b)[2][8], const uint4 *run) {
    const int together = N == 6 ? 3 : N < 4 ? N : 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++)
#pragma unroll
        for (int first = 0; first < N; first += together) {
            uint4 x[together];
#pragma unroll
            for (int n = 0; n < together; n++) x[n] = run[(half * N + first + n) * 32 + (threadIdx.x % 32 ^ half * 4)];
#pragma unroll
            for (u32 k = 0; k < 2; k++)
#pragma unroll
                for (int n = 0; n < together; n++)
#pragma unroll
                    for (u32 i = 0; i < 2; i++) {
                        u32 w = 4 * half + 2 * k;
                        mma(sum[i][first + n], a[i][w], b[i][w], a[i][w + 1], b[i][w + 1], k ? x[n].z : x[n].x, k ? x[n].w : x[n].y);
                    }
        }
}

// What belongs to vectors that are no whole numbers.
struct NoUnits {};

// 64 rows of each of two matrices (which may be the same) times all vectors: a warp gets the sums of 16 rows
// of either. `input(i)` is the i-th vector; what belongs to vectors that are whole numbers `units` knows. `room` has room
// for a shelf and a block of the vectors; every thread of the block must call this.
template <int F, int N, class Input, class Units>
__device__ __forceinline__ void many_columns(const Matrix &upper, u32 upper_row, const Matrix &lower, u32 lower_row, Input input, const Units &units, u8 *room, const Iq2Table *table, float (&total)[2][N][4]) {
    u32 t = threadIdx.x % 4, blocks = upper.cols / 256;
    uint4 *ring = (uint4 *)(room + Shelf<F>::bytes);
    float sum[2][N][4] = {};
    Supply<F> supply(upper, upper_row, lower, lower_row, room);
    Activations<F, N> activations(input, ring);
    Rows<F> rows(upper, upper_row, lower, lower_row, room);
    Tile<F> tiles[2];
    // Three runs ahead: a run comes to the place of the one that all warps have just left.
#pragma unroll
    for (u32 s = 0; s < 3; s++) supply.bring(s), activations.bring(s), copies_begun();
    for (u32 block = 0; block < blocks; block++) {
#pragma unroll
        for (u32 s = 0; s < 4; s++) {
            copies_done<2>();
            __syncthreads();
            if (s == 0 || block + 1 < blocks) supply.bring((s + 3) % 4), activations.bring((s + 3) % 4);
            copies_begun();
            if (s == 0) rows.begin(tiles, block);
            rows.fetch(tiles, s);
            u32 a[2][8], b[2][8];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                tiles[i].a.run(i ? lower : upper, table, s, t, a[i]);
                tiles[i].b.run(i ? lower : upper, table, s, t, b[i]);
            }
            multiply_run<N>(sum, a, b, ring + s * 2 * N * 32);
        }
        if constexpr (BY_BLOCKS<F>) {
#pragma unroll
            for (int n = 0; n < N; n++) {
                float2 unit = units.units(block, 8 * n + 2 * t);
                uint2 sums = units.sums(block, 8 * n + threadIdx.x % 32 / 4);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    scales_of(tiles[i]).add(total[i][n], sum[i][n], unit, sums);
                    sum[i][n][0] = sum[i][n][1] = sum[i][n][2] = sum[i][n][3] = 0.0f;
                }
            }
        } else if (block % 2 == 1 || block + 1 == blocks) {
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int j = 0; j < 4; j++) total[i][n][j] += sum[i][n][j], sum[i][n][j] = 0.0f;
        }
    }
}

template <int N> __device__ __forceinline__ void many_half_products(const HalfProductsArgs &a) {
    extern __shared__ uint4 many_memory[];
    enter();
    u32 i = 0;
    while (i + 1 < a.count && a.products[i + 1].p.first_block <= blockIdx.y) i++;
    const HalfProduct &p = a.products[i];
    const Matrix m = p.p.m;
    u32 first = blockIdx.x * 8 * N, warp = threadIdx.x / 32, top = (blockIdx.y - p.p.first_block) * 2 * HALF_ROWS;
    if (!p.x) {
        for (u32 row = top + warp; row < min(top + 2 * HALF_ROWS, m.rows); row += MANY_WARPS)
            for (u32 t = 0; t < 8 * N && first + t < a.rows; t += 8) {
#define BODY(F) product_row<F, 8>(p.p, row, first + t, a.rows)
                FOR_FORMAT(m.format, BODY)
#undef BODY
            }
        return;
    }
    u32 group = p.p.group_rows ? min(top, m.rows - 1) / p.p.group_rows : 0, stride = p.p.x_stride;
    const u16 *x = p.x + (u64)group * p.p.group_stride;
    auto input = [&](u32 i) { return x + (u64)min(first + i, a.rows - 1) * stride; };
    float total[2][N][4] = {};
#define BODY(F) many_columns<F, N>(m, top, m, top + HALF_ROWS, input, NoUnits(), (u8 *)many_memory, nullptr, total)
    FOR_CODES(m.format, BODY)
#undef BODY
    float scale = unscale(m.format), *y = p.p.y;
    u16 *halves = p.y;
    u32 row = top + warp * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 vector = first + 8 * n + threadIdx.x % 4 * 2 + j;
            if (vector >= a.rows) continue;
            u64 target = (u64)vector * p.p.y_stride + row;
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                u32 further = k / 2 * HALF_ROWS + k % 2 * 8;
                if (row + further >= m.rows) continue;
                float value = total[k / 2][n][k % 2 * 2 + j] * scale;
                if (y) y[target + further] = value;
                if (halves) halves[target + further] = half_of(value);
            }
        }
}

extern "C" __global__ void __launch_bounds__(128, 2) half_products_many(const HalfProductsArgs a) { many_half_products<8>(a); }
