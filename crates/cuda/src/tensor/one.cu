// Matrices of Q8_0 or halves times one vector: the products of `few.cu` where a row is alone. There are no more blocks in
// a launch than multiprocessors, as far as their sums fit, and each takes half of one: so the next kernel's finds room
// beside it and asks for its weights ahead. Where the kernel before left the multiprocessors unequal, a block asks for so
// much shared memory that there is no room for two.
//
// A warp has room for one piece: 16 rows of as many columns as fit into it, a tile of Q8_0 or half a tile of
// halves. It takes the piece into registers, asks for the next one into the same room, and then multiplies. So two
// pieces are there before the vector is, which comes once for a block.

static const u32 ONE_WARPS = 16;

// Where kernels do not overlap there is no next one to leave room for.
#if __CUDA_ARCH__ < 900
#define ONE_BOUNDS __launch_bounds__(32 * ONE_WARPS, 1)
#else
#define ONE_BOUNDS __launch_bounds__(32 * ONE_WARPS, RESIDENT(2))
#endif

struct OneProduct {
    HalfProduct of;
    u32 tiles;        // of 16 rows, that a block takes
    u32 inverse;      // 65536 over the segments of a row, rounded up
    u32 onward[2];    // bytes from an item to the sixteenth after it, which is further to the right, or is not
    u32 group_blocks; // that share an input
    u32 late;         // 1: the next kernel is invited when the last weights are asked for, see `OneList::late`
};

// What is multiplied where a block divides it by its root mean square first, as `keep_rows` does for several rows.
struct OneNorm {
    const float *x, *weight;
    float eps;
    u32 unused;
};

// Behind the last product come some whose first block no launch has.
struct OneProductsArgs {
    OneProduct products[MOST_PRODUCTS];
};

// The queries, and what is kept of the row beside them.
struct OneQueriesArgs {
    OneProductsArgs list;
    OneNorm norm; // of the low-rank query
    KeepArgs keep;
    u32 blocks; // of the products
    u32 unused;
};

// What a warp has for its piece: 256 bytes of codes of each row, then the scales.
static const u32 PIECE_ROW = 256, PIECE_CODES = 16 * PIECE_ROW, PIECE_ROOM = TILE_BYTES<Q8_0>;

// Asks for a piece: two rows to a line of lanes. `to` and `from` are the lane's.
template <int F, u32 I = 0> __device__ __forceinline__ void ask_piece(u32 to, const u8 *from) {
    if constexpr (I < 8) {
        copy_further<2 * PIECE_ROW * I, 2 * Widths<F>::codes * I>(to, from);
        ask_piece<F, I + 1>(to, from);
    } else if (Widths<F>::scales > 0 && threadIdx.x % 32 < Widths<F>::scales) {
        copy_further<PIECE_CODES>(to, from);
    }
}

// What a lane holds of a piece, of its two rows.
template <int F> struct OnePiece {
    uint4 a[4], b[4];
    u32 scales[4]; // of the first two runs, a's and b's, and of the others; 16 times what they are

    // The piece that was asked for, when it has come; the warp's room is free for the next. `codes` and `scales_at` are
    // the lane's places in it. Chunks trade places in odd rows.
    __device__ __forceinline__ void take(u32 room, u32 codes, u32 scales_at) {
        copies_arrived();
        __syncwarp();
        load(room, codes, scales_at);
        __syncwarp();
    }

    __device__ __forceinline__ void load(u32 room, u32 codes, u32 scales_at) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 at = room + (codes ^ i % 2 * Widths<F>::swap) + i / 2 * 128;
            a[i] = staged16(at), b[i] = staged16(at + 8 * PIECE_ROW);
        }
        if constexpr (F == Q8_0) {
            u32 which = threadIdx.x & 2 ? 0x7632 : 0x5410;
            uint4 of_a = staged16(room + scales_at), of_b = staged16(room + scales_at + 8 * 16);
            scales[0] = pair_mul(__byte_perm(of_a.x, of_a.y, which), SIXTEEN), scales[1] = pair_mul(__byte_perm(of_b.x, of_b.y, which), SIXTEEN);
            scales[2] = pair_mul(__byte_perm(of_a.z, of_a.w, which), SIXTEEN), scales[3] = pair_mul(__byte_perm(of_b.z, of_b.w, which), SIXTEEN);
        }
    }

    __device__ __forceinline__ void run(u32 s, u32 from_1024, u32 (&w)[8], u32 (&v)[8]) const {
        if constexpr (F == Q8_0) {
            u32 which = s % 2 ? 0x3232 : 0x1010;
            Codes<Q8_0>::decode(a[s], __byte_perm(scales[s / 2 * 2], 0, which), w, from_1024);
            Codes<Q8_0>::decode(b[s], __byte_perm(scales[s / 2 * 2 + 1], 0, which), v, from_1024);
        } else {
#pragma unroll
            for (u32 i = 0; i < 8; i++) w[i] = word(a[2 * s + i / 4], i % 4), v[i] = word(b[2 * s + i / 4], i % 4);
        }
    }
};

__device__ __forceinline__ void stage4(u32 at, float x) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(x) : "memory"); }

__device__ __forceinline__ void stage16(u32 at, uint4 x) { asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory"); }

__device__ __forceinline__ void stage2(u32 at, u16 x) { asm volatile("st.shared.u16 [%0], %1;" ::"r"(at), "h"(x) : "memory"); }

// The block's vector, as it lies in memory. By way of registers: who waits for a copy waits for those before it, too.
__device__ __forceinline__ void stage_vector(const u16 *x, u32 chunks, u32 to) {
#pragma unroll 1
    for (u32 i = threadIdx.x; i < chunks; i += 4 * 32 * ONE_WARPS) {
        uint4 part[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            if (i + j * 32 * ONE_WARPS < chunks) part[j] = global16(x + (i + j * 32 * ONE_WARPS) * 8);
#pragma unroll
        for (u32 j = 0; j < 4; j++)
            if (i + j * 32 * ONE_WARPS < chunks) stage16(to + (i + j * 32 * ONE_WARPS) * 16, part[j]);
    }
}

// The same of a vector that must be divided by its root mean square. At `values` there is room for it, and behind that
// lie the norm's weights, of each those that a thread looks after. A rehearsal reads the vector too: no nearer memory may
// answer the second time.
__device__ __forceinline__ void stage_normed(const OneNorm &norm, u32 n, u32 values, u32 to) {
    __shared__ float shared32[32];
    float squares = 0.0f;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < n; i += ABREAST * KEEPERS) {
        float x[ABREAST];
#pragma unroll
        for (u32 k = 0; k < ABREAST; k++) x[k] = i + k * KEEPERS < n ? __ldcg(norm.x + i + k * KEEPERS) : 0.0f;
#pragma unroll
        for (u32 k = 0; k < ABREAST; k++) {
            squares = __fmaf_rn(x[k], x[k], squares);
            if (i + k * KEEPERS < n) stage4(values + 4 * (i + k * KEEPERS), x[k]);
        }
    }
    float scale = inverse_rms(squares, n, norm.eps, shared32);
#pragma unroll 4
    for (u32 i = threadIdx.x; i < n; i += KEEPERS) stage2(to + 2 * i, half_of(__uint_as_float(staged4(values + 4 * i)) * scale * __uint_as_float(staged4(values + 4 * (n + i)))));
}
static_assert(KEEPERS == 32 * ONE_WARPS, "a sum of squares has one order, and the row's jobs have their threads");

// What block `block` of a product does; NORMED: with the norm's vector.
template <int F, bool NORMED> __device__ __forceinline__ void one_product(const OneProduct &p, const OneNorm &norm, u32 block, u32 rooms) {
    const u32 pieces = Widths<F>::codes / PIECE_ROW, runs = 4 / pieces;
    const Product &of = p.of.p;
    // The compiler has to know what all lanes of a warp have in common: it has registers of its own for that.
    u32 lane = threadIdx.x % 32, warp = __shfl_sync(FULL, threadIdx.x / 32, 0), g = lane / 4, t = lane % 4;
    // A block's work is items: the segments of its tiles, one tile after another, of which a warp takes every
    // sixteenth. The sixteenth from here is so many tiles and `step` segments further.
    u32 blocks = of.m.cols / 256, segments = (blocks + 1) / 2, top = block * p.tiles;
    u32 items = min(p.tiles, (of.m.rows + 15) / 16 - top) * segments;
    u32 tile = warp * p.inverse >> 16, segment = warp - tile * segments, step = ONE_WARPS - (ONE_WARPS * p.inverse >> 16) * segments;
    u32 vector = rooms + ONE_WARPS * PIECE_ROOM, sums = vector + blocks * 512; // [tiles][segments][16]
    u32 room = rooms + warp * PIECE_ROOM, to = lane * 16, codes = g * PIECE_ROW + (Codes<F>::lane(t) ^ g % 2 * Widths<F>::swap), scales = PIECE_CODES + g * 16;
    const u8 *item = of.m.codes + ((u64)(top + tile) * blocks + 2 * segment) * TILE_BYTES<F>;
    // A number that the compiler would move to where it is needed each time, if it knew it.
    u32 from = lane / 16 * Widths<F>::codes + lane % 16 * 16, from_1024 = threadIdx.x < 2 * of.m.cols ? FROM_1024 : 0;
    // An item's sums go where no other's do, and say which it is.
    u32 put = sums + warp * 64, end = sums + items * 64, k = 1, at;
    bool last;
    OnePiece<F> piece;
    // Takes the k-th piece of an item into registers, and asks for the next.
    auto take = [&] {
        piece.take(room, codes, scales);
        u32 next = k / pieces * TILE_BYTES<F> + k % pieces * PIECE_ROW;
        at = vector + segment * (2 * SEGMENT) + (k - 1) * (SEGMENT / pieces);
        last = k == (2 * segment + 2 > blocks ? pieces : 2 * pieces);
        k++;
        if (last) {
            segment += step, k = 1;
            bool around = segment >= segments;
            item += p.onward[around], next = 0;
            if (around) segment -= segments;
        }
        if (!last || put + ONE_WARPS * 64 < end) ask_piece<F>(room + to, item + next + from);
    };
    u32 values = sums + p.tiles * segments * 64;
    if (NORMED) ask_for_norm(values + 4 * of.m.cols, norm.weight, of.m.cols);
    if (put < end) {
        ask_piece<F>(room + to, item + from);
        take();
    } else if (NORMED) {
        copies_arrived();
    }
    const u16 *x = p.of.x;
    if (!NORMED && of.group_rows < of.m.rows) x += block / p.group_blocks * of.group_stride;
    // Where there is more to do than to copy, it is done once before for nothing, as `first_pass` says.
#pragma unroll 1
    for (u32 pass = NORMED ? first_pass(true) : 1; pass < 2; pass++) {
        if (pass) {
            await();
            if (NORMED || !p.late) invite();
        }
        if (NORMED)
            stage_normed(norm, of.m.cols, values, vector);
        else
            stage_vector(x, blocks * 32, vector);
    }
    __syncthreads();
    float sum[4] = {};
#pragma unroll 1
    while (put < end) {
#pragma unroll
        for (u32 s = 0; s < runs; s++) {
            uint4 low = staged16(at + t * 32 + s * 128), high = staged16(at + t * 32 + s * 128 + 16);
            u32 a[8], b[8];
            piece.run(s, from_1024, a, b);
            mma_run(sum, a, b, low, high);
        }
        if (last) {
            if (t == 0) stage4(put + g * 4, sum[0]), stage4(put + g * 4 + 32, sum[2]);
            put += ONE_WARPS * 64;
            if (put >= end) break;
            sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
        }
        take();
        if (!NORMED && p.late && put + ONE_WARPS * 64 >= end) invite();
    }
    __syncthreads();
    for (u32 o = threadIdx.x; o < p.tiles * 16; o += 32 * ONE_WARPS) {
        u32 row = top * 16 + o, mine = sums + (o / 16 * segments * 16 + o % 16) * 4;
        if (row >= of.m.rows) break;
        float y = 0.0f;
#pragma unroll 8
        for (u32 s = 0; s < segments; s++) y += __uint_as_float(staged4(mine + s * 64));
        y *= unscale(F);
        if (of.y) of.y[row] = y;
        if (p.of.y) p.of.y[row] = half_of(y);
    }
}

template <bool NORMED> __device__ __forceinline__ void one_of_products(const OneProductsArgs &a, const OneNorm &norm, u32 rooms) {
    u32 i = 0;
#pragma unroll
    for (u32 k = 1; k < MOST_PRODUCTS; k++) i += a.products[k].of.p.first_block <= blockIdx.x;
    const OneProduct &p = a.products[i];
    u32 block = blockIdx.x - p.of.p.first_block;
    if (p.of.p.m.format == Q8_0)
        one_product<Q8_0, NORMED>(p, norm, block, rooms);
    else
        one_product<F16, NORMED>(p, norm, block, rooms);
}

extern "C" __global__ void ONE_BOUNDS half_products_1(const __grid_constant__ OneProductsArgs a) {
    extern __shared__ uint4 shared_memory[];
    one_of_products<false>(a, OneNorm{}, shared_address(shared_memory));
}

// The queries from the low-rank query, and beside them the row's other jobs: all of them need but what the inputs gave.
extern "C" __global__ void ONE_BOUNDS half_queries_1(const __grid_constant__ OneQueriesArgs a) {
    extern __shared__ uint4 shared_memory[];
    if (blockIdx.x < a.blocks)
        one_of_products<true>(a.list, a.norm, shared_address(shared_memory));
    else
        invite(), keep_job(a.keep, ROW_JOB + blockIdx.x - a.blocks, 0, first_pass(true), (float *)shared_memory);
}
