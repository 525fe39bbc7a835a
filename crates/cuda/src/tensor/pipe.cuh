// Weights on their way to up to 16 vectors, in any format: warps ask for them piece by piece, some pieces ahead, and
// multiply each with its columns of all vectors. What makes a sum is told in `few.cu`. Kernels for one row and for
// known formats have ways of their own (`one.cu`, `together.cu`, `experts/flash.cu`, `experts/items.cu`), and
// share with this one how a warp asks for a line, what a lane holds of a tile, and how a run is multiplied.

// Columns of a segment: two blocks of 256.
static const u32 SEGMENT = 512;

__device__ __forceinline__ u32 segments_of(u32 cols) { return (cols + SEGMENT - 1) / SEGMENT; }

// What the compiler cannot see to be global memory.
__device__ __forceinline__ uint4 global16(const u16 *x) {
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(x));
    return v;
}

// The activations of one run of columns for 8 vectors, as the tensor product wants them.
struct Runs {
    uint4 low, high;
    __device__ __forceinline__ void load(const u16 *x) { low = global16(x), high = global16(x + 8); }
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
    __device__ __forceinline__ void begin(const Span<F> &at) {
        a.begin(at, 0, threadIdx.x % 4);
        b.begin(at, 8, threadIdx.x % 4);
    }
    __device__ __forceinline__ void fetch(const Span<F> &at, u32 s) {
        a.fetch(at, 0, s);
        b.fetch(at, 8, s);
    }
};

template <> struct Tile<OTHER> {
    Codes<OTHER> a, b;
};

template <int F> __device__ __forceinline__ BlockScales<F> scales_of(const Tile<F> &tile) { return BlockScales<F>(tile.a, tile.b); }

// 256 columns of a vector in shared memory, in a line. Chunks trade places within it, so that
// the lanes of a row of weights have different banks, whatever the format's runs are.
struct Near {
    // Places of parts of a column number can be put together by exclusive or.
    __device__ __forceinline__ static u32 place(u32 column) {
        u32 chunk = column / 8;
        return (chunk ^ (chunk / 8 % 4) << 1) * 16;
    }
};

// As many activations as are asked for at once: there are no registers for more. `x` are the lane's vectors
// in each group of 8, at its first run of a block; lanes whose vector does not exist take another one's, and
// what comes out is not looked at.
template <int F, int N> struct Inputs {
    static const u32 together = N == 1 && sizeof(Tile<F>) < 192 ? 4 : 2;
    Runs runs[N][together];
    __device__ __forceinline__ void load(const u16 *const (&x)[N], u32 first) {
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (u32 s = 0; s < together; s++) runs[n][s].load(x[n] + Codes<F>::start(first + s, 0));
    }
};

// One block of 256 columns, whose first inputs are there; `fetch` gets the codes of a run.
template <int F, int N, class Fetch>
__device__ __forceinline__ void few_block(const Matrix &m, Tile<F> &tile, const u16 *const (&x)[N], Inputs<F, N> &inputs, float (&sum)[N][4], Fetch fetch) {
    const u32 together = Inputs<F, N>::together;
    fetch(0);
#pragma unroll
    for (u32 s = 0; s < 4; s++) {
        if (s > 0 && s % together == 0) inputs.load(x, s);
        if (s < 3) fetch(s + 1);
        u32 a[8], b[8];
        tile.a.run(m, nullptr, s, threadIdx.x % 4, a);
        tile.b.run(m, nullptr, s, threadIdx.x % 4, b);
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

// All copies of the thread.
__device__ __forceinline__ void copies_arrived() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// As `copy_async`, known numbers of bytes further on.
template <u32 TO, u32 FROM = TO> __device__ __forceinline__ void copy_further(u32 shared, const u8 *global) {
    asm volatile("cp.async.cg.shared.global [%0 + %2], [%1 + %3], 16;" ::"r"(shared), "l"(global), "n"(TO), "n"(FROM) : "memory");
}

// A warp asks for so many bytes, a multiple of 16: `to` and `from` are the lane's.
template <u32 BYTES, u32 AT = 0> __device__ __forceinline__ void ask_line(u32 to, const u8 *from) {
    if constexpr (AT + 512 <= BYTES) {
        copy_further<AT>(to, from);
        ask_line<BYTES, AT + 512>(to, from);
    } else if constexpr (AT < BYTES) {
        if (threadIdx.x % 32 < (BYTES - AT) / 16) copy_further<AT>(to, from);
    }
}

// The compiler would rather compute a number anew than keep it in a register; this one it has to keep.
template <class T> __device__ __forceinline__ void keep_at_hand(T &x) {
    if constexpr (sizeof(T) == 8)
        asm("" : "+l"(x));
    else
        asm("" : "+r"(x));
}

// 16 rows of weights, from their first column.
template <int F> struct Strip {
    const u8 *tiles, *beside; // `beside`: the scales of FP8
    __device__ __forceinline__ Strip(const Matrix &m, u32 row)
        : tiles(m.codes + (u64)(row / 16) * (m.cols / 256) * TILE_BYTES<F>), beside(F == FP8 ? scales_of_128(m, row) : nullptr) {}
};

template <> struct Strip<OTHER> {
    Matrix m;
    u32 row;
    __device__ __forceinline__ Strip(const Matrix &of, u32 first) : m(of), row(first) {}
};

// What a warp keeps of weights at a time: a tile, or, of few bits, the two of a segment.
template <int F> struct Piece {
    static const u32 blocks = Widths<F>::codes <= 64 ? 2 : 1, per_segment = 2 / blocks, bytes = blocks * TILE_BYTES<F>;
};

// What a warp has for the pieces of one format, and how many of them fit.
static const u32 ROOM = 16 * 2 * (256 + 16);
template <int F> constexpr int DEPTH = ROOM / Piece<F>::bytes < 4 ? ROOM / Piece<F>::bytes : 4;
template <> constexpr int DEPTH<OTHER> = 1;

template <int N> __device__ __forceinline__ void multiply_other(const Strip<OTHER> &of, u32 block, const u16 *const (&x)[N], float (&sum)[N][4]) {
    u32 g = threadIdx.x % 32 / 4;
    Tile<OTHER> tile;
    tile.a.row = min(of.row + g, of.m.rows - 1), tile.b.row = min(of.row + g + 8, of.m.rows - 1);
    tile.a.block = tile.b.block = block;
    Inputs<OTHER, N> inputs;
    inputs.load(x, 0);
    few_block<OTHER, N>(of.m, tile, x, inputs, sum, [](u32) {});
}

// A warp's work: segments of strips, one after another, `D` pieces ahead. A walk says of a segment which it
// is: its strip, its number among the strip's, where its columns begin; `next` goes to the next.
template <int F, int D, class Walk> struct Pipe {
    using P = Piece<F>;
    static const u32 slot_bytes = P::bytes;

    u32 to;            // where the lane copies
    Span<F> span;      // what it reads
    u32 blocks, count; // of the matrices' columns; of segments
    Walk here, ahead;
    u32 asked, ask_slot, slot;

    __device__ __forceinline__ Pipe(u8 *room, u32 blocks, u32 count, const Walk &walk)
        : to(shared_address(room)), span(to, to + 16 * Widths<F>::codes, threadIdx.x % 32 / 4, Codes<F>::lane(threadIdx.x % 4), nullptr), blocks(blocks), count(count), here(walk), ahead(walk),
          asked(0), ask_slot(0), slot(0) {
        keep_at_hand(to), keep_at_hand(span.codes), keep_at_hand(span.scales);
        if (Widths<F>::swap) keep_at_hand(span.traded);
    }

    __device__ __forceinline__ void ask() {
        if (asked < count * P::per_segment) {
            u32 block = 2 * ahead.segment + asked % P::per_segment, at = to + ask_slot * slot_bytes + threadIdx.x % 32 * 16;
            if (block < blocks) {
                const u8 *from = ahead.strip().tiles + (block * TILE_BYTES<F> + threadIdx.x % 32 * 16);
                if (P::blocks > 1 && block + 1 == blocks)
                    ask_line<TILE_BYTES<F>>(at, from);
                else
                    ask_line<P::bytes>(at, from);
            }
            asked++;
            if (P::per_segment == 1 || asked % 2 == 0) ahead.next();
            ask_slot = ask_slot + 1 < D ? ask_slot + 1 : 0;
        }
        copies_begun();
    }

    // Asks for the first weights; what they are multiplied with need not be there yet.
    __device__ __forceinline__ void begin() {
#pragma unroll
        for (u32 i = 0; i < D; i++) ask();
    }

    // `input` are the lane's vectors; `done(walk, sums)` takes what has come out of a segment.
    template <int N, class Done> __device__ __forceinline__ void end(const u16 *const (&input)[N], Done done) {
        const Matrix not_needed = {};
        const u16 *mine[N];
#pragma unroll
        for (int n = 0; n < N; n++) {
            mine[n] = input[n] + Codes<F>::start(0, threadIdx.x % 4);
            keep_at_hand(mine[n]);
        }
        for (u32 i = 0; i < count; i++) {
            float sum[N][4] = {};
#pragma unroll 1
            for (u32 k = 0; k < 2; k++) {
                u32 block = 2 * here.segment + k, within = P::blocks > 1 ? k : 0;
                if (block < blocks) {
                    const u16 *x[N];
                    Inputs<F, N> inputs;
#pragma unroll
                    for (int n = 0; n < N; n++) x[n] = mine[n] + here.column() + 256 * k;
                    inputs.load(x, 0);
                    if (within == 0) {
                        copies_done<D - 1>();
                        __syncwarp();
                    }
                    Span<F> at = span.further(slot * slot_bytes + within * TILE_BYTES<F>);
                    if (F == FP8) at.beside = here.strip().beside + 2 * block;
                    Tile<F> tile;
                    tile.begin(at);
                    few_block<F, N>(not_needed, tile, x, inputs, sum, [&](u32 s) { tile.fetch(at, s); });
                }
                if (within + 1 < P::blocks) continue;
                __syncwarp();
                ask();
                slot = slot + 1 < D ? slot + 1 : 0;
            }
            done(here, sum);
            here.next();
        }
    }
};

template <int D, class Walk> struct Pipe<OTHER, D, Walk> {
    u32 blocks, count;
    Walk here;

    __device__ __forceinline__ Pipe(u8 *, u32 blocks, u32 count, const Walk &walk) : blocks(blocks), count(count), here(walk) {}

    __device__ __forceinline__ void begin() {}

    template <int N, class Done> __device__ __forceinline__ void end(const u16 *const (&input)[N], Done done) {
        const u16 *mine[N];
#pragma unroll
        for (int n = 0; n < N; n++) mine[n] = input[n] + Codes<OTHER>::start(0, threadIdx.x % 4);
        for (u32 i = 0; i < count; i++) {
            float sum[N][4] = {};
            for (u32 k = 0; k < 2 && 2 * here.segment + k < blocks; k++) {
                const u16 *x[N];
#pragma unroll
                for (int n = 0; n < N; n++) x[n] = mine[n] + here.column() + 256 * k;
                multiply_other<N>(here.strip(), 2 * here.segment + k, x, sum);
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
    __device__ __forceinline__ const Strip<F> &strip() const { return of; }
    __device__ __forceinline__ u32 column() const { return segment * SEGMENT; }
    __device__ __forceinline__ void next() { segment += step; }
};
