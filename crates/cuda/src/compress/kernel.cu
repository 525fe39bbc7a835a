// Compressed rows and index rows: a window of tokens pooled by a softmax over them in each dimension.

struct CompressorArgs {
    const float *norm;
    RowFormat format;
    u64 pending_at; // the ring of projections, in the slot's arena
    u64 row_at;     // the layer's rows, in a page
    u32 depth;      // of the ring
    u32 index;      // 1: index rows
};

struct CompressArgs {
    const Row *rows;
    const float2 *turns;
    CompressorArgs compressors[2];
    u32 ratio, windows, turn;
    float eps;
};

// A row of the round that completes a window makes the window's row. Where windows overlap, the first
// half of a token's columns belongs to the row of the window after its own, the second to its own row.
extern "C" __global__ void __launch_bounds__(256) compress(const CompressArgs a) {
    enter();
    extern __shared__ float v[];
    __shared__ float shared32[32];
    const Row row = a.rows[blockIdx.x];
    if ((row.position + 1) % a.ratio) return;
    const CompressorArgs &c = a.compressors[blockIdx.y];
    u32 dim = c.format.values, width = a.windows * dim;
    u32 own = row.position + 1 - a.ratio;
    u32 before = (a.windows - 1) * a.ratio;
    u32 first = own < before ? 0 : own - before;
    const float *ring = (const float *)(row.arena + c.pending_at);

    for (u32 i = threadIdx.x; i < dim; i += blockDim.x) {
        float largest = -INFINITE;
        for (u32 t = first; t <= row.position; t++) {
            u32 column = t < own ? 0 : (a.windows - 1) * dim;
            largest = fmaxf(largest, ring[(u64)(t % c.depth) * 2 * width + width + column + i]);
        }
        float sum = 0.0f, pooled = 0.0f;
        for (u32 t = first; t <= row.position; t++) {
            u32 column = t < own ? 0 : (a.windows - 1) * dim;
            const float *kept = ring + (u64)(t % c.depth) * 2 * width + column + i;
            float weight = expf(kept[width] - largest);
            sum += weight;
            pooled += weight * kept[0];
        }
        v[i] = pooled / sum;
    }
    __syncthreads();
    rms_norm(v, c.norm, dim, a.eps, shared32);
    rotate(v, dim, c.format.rope, a.turns + ((u64)blockIdx.x * 4 + a.turn) * (c.format.rope / 2));
    u8 *target = page_row(row.pages, a.ratio, c.row_at, own / a.ratio, c.format.bytes);
    if (c.index)
        pack_index(v, c.format, target);
    else
        pack_attention(v, c.format, target);
}
