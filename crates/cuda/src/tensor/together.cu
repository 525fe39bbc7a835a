// Matrices of Q8_0 or halves times a few vectors: the products of `few.cu` where a card has clusters. Blocks of a
// cluster share the columns of some tiles, one or two segments to each, so that what a block needs of all vectors
// fits into its shared memory and comes there once; each piece of weights would else bring twice its bytes of
// vectors with it. Weights come as in `one.cu`. A segment's sums go to the block of the cluster that adds up the
// tile's, in the order of the segments.

struct TogetherProduct {
    HalfProduct of;
    u32 tiles;          // of 16 rows, that a cluster takes
    u32 group_clusters; // that share an input,
    u32 group_tiles;    // and the tiles that do: all, where all rows have the same
    float limit;        // of an expert's input: what both sides of it are clamped to
    const u8 *up;       // and the tiles of its other matrix
};

// Behind the last product come some whose first cluster no launch has.
struct TogetherProductsArgs {
    TogetherProduct products[MOST_PRODUCTS];
    u32 rows; // of the batch
    u32 unused;
};

// What cluster `cluster` of a product does; a line of the grid is a cluster. It takes 8 N vectors. With PAIR the
// product is that of an expert's two input matrices: their tiles take turns, the sums of both go to the same block,
// and what comes out of them is stored.
template <int N, int F, u32 PAIR = 0> __device__ __forceinline__ void products_together(const TogetherProduct &p, u32 cluster, u32 rows, u8 *shared) {
    const u32 pieces = Widths<F>::codes / PIECE_ROW, runs = 4 / pieces, item_sums = N * 512;
    const Product &of = p.of.p;
    // The compiler has to know what all lanes of a warp have in common.
    u32 lane = threadIdx.x % 32, warp = __shfl_sync(FULL, threadIdx.x / 32, 0), g = lane / 4, t = lane % 4;
    u32 rank = blockIdx.x, company = gridDim.x, company_log = __popc(company - 1);
    u32 group = cluster / p.group_clusters, before = cluster % p.group_clusters * p.tiles;
    u32 blocks = of.m.cols / 256, segments = (blocks + 1) / 2, top = group * p.group_tiles + before, tiles = min(p.tiles, p.group_tiles - before) << PAIR;
    // A block has one segment, or two, of which a warp takes always the same.
    u32 two = segments > company, first = rank << two, within = warp & two, segment = first + within, step = FEW_WARPS >> two;
    u32 tile = segment < segments ? warp >> two : tiles;
    u32 rooms = shared_address(shared), room = rooms + warp * PIECE_ROOM, to = lane * 16;
    // Lines of neighbouring vectors are a chunk apart, so that lanes that read together have different banks.
    u32 line = (2 * SEGMENT << two) + 16, vectors = rooms + FEW_WARPS * PIECE_ROOM + 16;
    u32 codes = g * PIECE_ROW + (Codes<F>::lane(t) ^ g % 2 * Widths<F>::swap), scales = PIECE_CODES + g * 16;
    u64 *box = (u64 *)(shared + FEW_WARPS * PIECE_ROOM);
    u8 *sums = shared + FEW_WARPS * PIECE_ROOM + 16 + 8 * N * line; // [tiles of this block][segments][N][32 lanes][4]
    u32 mine = ((tiles >> PAIR) + company - 1 - rank) >> company_log << PAIR; // tiles that this block adds up
    const u8 *item = (tile & PAIR ? p.up : of.m.codes) + ((u64)(top + (tile >> PAIR)) * blocks + 2 * segment) * TILE_BYTES<F>;
    u32 onward = (step >> PAIR) * blocks * TILE_BYTES<F>, from = lane / 16 * Widths<F>::codes + lane % 16 * 16;
    // A number that the compiler would move to where it is needed each time, if it knew it.
    u32 from_1024 = threadIdx.x < of.m.cols ? FROM_1024 : 0;
    // The last segment of a row may have one block of columns only.
    u32 count = 2 * segment + 2 > blocks ? pieces : 2 * pieces, k = 1, at;
    bool last;
    OnePiece<F> piece;
    // Takes the k-th piece of an item into registers, and asks for the next.
    auto take = [&] {
        piece.take(room, codes, scales);
        u32 next = k / pieces * TILE_BYTES<F> + k % pieces * PIECE_ROW;
        at = vectors + g * line + within * (2 * SEGMENT) + t * 32 + (k - 1) * (SEGMENT / pieces);
        last = k == count;
        k++;
        if (last) item += onward, next = 0, k = 1;
        if (!last || tile + step < tiles) ask_piece<F>(room + to, item + next + from);
    };
    if (tile < tiles) ask_piece<F>(room + to, item + from);
    if (threadIdx.x == 0) open_box(box, mine * segments * item_sums);
    arrive();
    if (tile < tiles) take();
    const u16 *x = p.of.x + group * of.group_stride + first * SEGMENT;
    await();
    // By way of registers: who waits for a copy waits for those before it, too.
    uint4 part[4 * N];
    u32 chunk = threadIdx.x & (64 << two) - 1, vector = threadIdx.x >> (6 + two), apart = FEW_WARPS / 2 >> two;
    bool there = first * SEGMENT + chunk * 8 < of.m.cols;
#pragma unroll
    for (u32 j = 0; j < 4 * N; j++)
        if (there && vector + j * apart < rows) part[j] = global16(x + (u64)(vector + j * apart) * of.x_stride + chunk * 8);
#pragma unroll
    for (u32 j = 0; j < 4 * N; j++)
        if (there && vector + j * apart < rows) stage16(vectors + (vector + j * apart) * line + chunk * 16, part[j]);
    __syncthreads();
    // All blocks of the cluster have opened their boxes.
    wait_for_all();
    float sum[N][4] = {};
#pragma unroll 1
    while (tile < tiles) {
#pragma unroll
        for (u32 s = 0; s < runs; s++) {
            uint4 low[N], high[N];
#pragma unroll
            for (u32 n = 0; n < N; n++) low[n] = staged16(at + n * 8 * line + s * 128), high[n] = staged16(at + n * 8 * line + s * 128 + 16);
            u32 a[8], b[8];
            piece.run(s, from_1024, a, b);
#pragma unroll
            for (u32 n = 0; n < N; n++) mma_run(sum[n], a, b, low[n], high[n]);
        }
        if (last) {
            u8 *place = sums + ((tile >> PAIR >> company_log << PAIR | tile & PAIR) * segments + segment) * item_sums + lane * 16;
#pragma unroll
            for (u32 n = 0; n < N; n++) {
                float4 four = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
                // One block is no cluster, and has no letters.
                if (company == 1)
                    *(float4 *)(place + n * 512) = four;
                else
                    post(tile >> PAIR & company - 1, (const float *)(place + n * 512), four, box);
                sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0f;
            }
            tile += step;
            if (tile >= tiles) break;
        }
        take();
    }
    __syncthreads(); // who is ready early does not keep asking
    if (company > 1) wait_for(box);
    for (u32 o = threadIdx.x; o < (mine >> PAIR) * N * 32; o += 32 * FEW_WARPS) {
        u32 slot = o / (N * 32), n = o / 32 % N, begin = shared_address(sums) + (slot << PAIR) * segments * item_sums + o % (N * 32) * 16;
        float y[4] = {}, up[4] = {};
#pragma unroll 4
        for (u32 s = 0; s < segments; s++) {
            uint4 of_segment = staged16(begin + s * item_sums), of_other;
            if (PAIR) of_other = staged16(begin + (segments + s) * item_sums);
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                y[i] += __uint_as_float(word(of_segment, i));
                if (PAIR) up[i] += __uint_as_float(word(of_other, i));
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 row = (top + slot * company + rank) * 16 + g + i / 2 * 8, which = 8 * n + 2 * t + i % 2;
            if (row >= of.m.rows || which >= rows) continue;
            u64 target = (u64)which * of.y_stride + row;
            float scaled = y[i] * unscale(F);
            if (PAIR) scaled = swiglu(scaled, up[i] * unscale(F), p.limit);
            if (of.y) of.y[target] = scaled;
            if (p.of.y) p.of.y[target] = half_of(scaled);
        }
    }
}

// What cluster `cluster` of a list does.
template <int N> __device__ __forceinline__ void half_products_together(const TogetherProductsArgs &a, u32 cluster, u8 *shared) {
    u32 i = 0;
#pragma unroll
    for (u32 k = 1; k < MOST_PRODUCTS; k++) i += a.products[k].of.p.first_block <= cluster;
    const TogetherProduct &p = a.products[i];
    cluster -= p.of.p.first_block;
    if (p.of.p.m.format == Q8_0)
        products_together<N, Q8_0>(p, cluster, a.rows, shared);
    else
        products_together<N, F16>(p, cluster, a.rows, shared);
}

extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) half_products_together_8(const __grid_constant__ TogetherProductsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    half_products_together<1>(a, blockIdx.y, (u8 *)shared_memory);
}

extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) half_products_together_16(const __grid_constant__ TogetherProductsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    half_products_together<2>(a, blockIdx.y, (u8 *)shared_memory);
}
