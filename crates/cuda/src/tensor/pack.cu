// Vectors as the products of `hopper.cu` want them in shared memory, so that they come there as they lie: eight
// vectors side by side, and of each run of 64 columns, in four quarters and these in halves, 16 bytes of every
// vector: what the four lanes of a row of weights meet together. Which columns those are is the format's affair.

// Columns that a block packs at a time, of eight vectors, and bytes from one of them to the next meanwhile.
static const u32 PACK_COLUMNS = 1024, PACK_LINE = 2 * PACK_COLUMNS + 16;

struct PackArgs {
    const u16 *x, *shared_x; // `shared_x`: what the shared expert takes
    u16 *to;           // [groups of eight][width][8]
    const Item *items; // of experts, the first says how many follow; null: rows as they come
    const u32 *order;  // pairs, by expert
    u32 rows, width;   // vectors, and their values
    u32 per_row;       // pairs that share a vector
    u32 shared_items;  // the last
    u32 format, shared_format;
};

// Where the groups of an item begin, among those of all: an item may leave one of its own unfilled.
__device__ __forceinline__ u32 group_of_item(const Item &item, u32 i) { return item.first / 8 + i; }

template <int F> __device__ __forceinline__ void pack_block(const u8 *lines, u8 *to, u32 columns) {
    for (u32 i = threadIdx.x; i < columns; i += blockDim.x) {
        u32 v = i % 8, half = i / 8 % 2, quarter = i / 16 % 4, s = i / 64 % 4, block = i / 256, w[4];
#pragma unroll
        for (u32 t = 0; t < 4; t++) w[t] = *(const u32 *)(lines + v * PACK_LINE + 2 * (256 * block + Codes<F>::start(s, t) + 4 * quarter + 2 * half));
        ((uint4 *)to)[i] = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

extern "C" __global__ void __launch_bounds__(256) pack_vectors(const PackArgs a) {
    __shared__ __align__(16) u8 lines[8 * PACK_LINE];
    enter();
    u32 first = PACK_COLUMNS * blockIdx.x, columns = min(PACK_COLUMNS, a.width - first), group = blockIdx.y, format = a.format;
    const u16 *from = a.x;
    Item item = {0, 0, a.rows, 0};
    u32 within = group;
    if (a.items) {
        // Sixteen groups for each item, as many as it can have.
        u32 i = group / 16;
        if (i >= a.items[0].count) return;
        item = a.items[1 + i], within = group % 16, group = group_of_item(item, i) + within;
        if (i >= a.items[0].count - a.shared_items) format = a.shared_format, from = a.shared_x;
    }
    if (8 * within >= item.count) return;
    for (u32 i = threadIdx.x; i < columns; i += blockDim.x) {
        u32 v = i / (columns / 8), at = i % (columns / 8) * 8, vector = min(8 * within + v, item.count - 1);
        if (a.items) vector = a.order[item.first + vector] / a.per_row;
        *(uint4 *)(lines + v * PACK_LINE + 2 * at) = *(const uint4 *)(from + (u64)vector * a.width + first + at);
    }
    __syncthreads();
    u8 *to = (u8 *)(a.to + ((u64)group * a.width + first) * 8);
#define BODY(F) pack_block<F>(lines, to, columns)
    if (format == IQ2_XXS) {
        BODY(IQ2_XXS);
    } else {
        FOR_CODES(format, BODY)
    }
#undef BODY
}
