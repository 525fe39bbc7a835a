// What a layer keeps of each row: the key/value row in the window's ring, the compressors' projections
// in theirs. And the copies of such rings that let a slot go back.

// A compressor's projections of this round, and where they are kept.
struct PendingArgs {
    const float *kv, *score; // [rows][width]
    const float *ape;        // [ratio][width]
    u64 at;                  // of the ring, in the slot's arena
    u32 width, depth;
};

struct KeepArgs {
    const Row *rows;
    const float2 *turns; // [rows][4][rope / 2]
    float *qr;           // [rows][q_rank], normalised in place
    const float *qr_norm;
    const float *kv; // [rows][values]
    const float *kv_norm;
    RowFormat format;
    PendingArgs pending[2]; // the compressor's, the indexer's
    u64 window_at;
    u32 window_depth, q_rank, ratio, turn;
    float eps;
    u32 unused;
    u16 *half; // [rows][q_rank], or null: qr as halves
};

// Four jobs for every row: the low-rank query, the key/value row, and two compressors.
extern "C" __global__ void __launch_bounds__(256) keep_rows(const KeepArgs a) {
    enter();
    extern __shared__ float v[];
    __shared__ float shared32[32];
    u32 r = blockIdx.x;
    const Row row = a.rows[r];
    if (blockIdx.y == 0) {
        float *qr = a.qr + (u64)r * a.q_rank;
        for (u32 i = threadIdx.x; i < a.q_rank; i += blockDim.x) v[i] = qr[i];
        __syncthreads();
        rms_norm(v, a.qr_norm, a.q_rank, a.eps, shared32);
        for (u32 i = threadIdx.x; i < a.q_rank; i += blockDim.x) {
            qr[i] = v[i];
            if (a.half) a.half[(u64)r * a.q_rank + i] = half_of(v[i]);
        }
    } else if (blockIdx.y == 1) {
        for (u32 i = threadIdx.x; i < a.format.values; i += blockDim.x) v[i] = a.kv[(u64)r * a.format.values + i];
        __syncthreads();
        rms_norm(v, a.kv_norm, a.format.values, a.eps, shared32);
        rotate(v, a.format.values, a.format.rope, a.turns + ((u64)r * 4 + a.turn) * (a.format.rope / 2));
        u8 *ring = row.arena + a.window_at;
        pack_attention(v, a.format, ring + (u64)(row.position % a.window_depth) * a.format.bytes);
    } else {
        const PendingArgs &p = a.pending[blockIdx.y - 2];
        float *kept = (float *)(row.arena + p.at) + (u64)(row.position % p.depth) * 2 * p.width;
        const float *ape = p.ape + (u64)(row.position % a.ratio) * p.width;
        for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) {
            kept[i] = p.kv[(u64)r * p.width + i];
            kept[p.width + i] = p.score[(u64)r * p.width + i] + ape[i];
        }
    }
}

// A ring of a slot's arena.
struct Ring {
    u64 at;
    u64 before; // bytes of a row of each ring before this one
    u32 row_bytes; // a multiple of four
    u32 depth;
};

struct SaveArgs {
    const Ring *rings;
    const Row *rows;
    u8 *buffer; // for each ring `capacity` rows
    u64 capacity;
};

// Saves what the rows of the round are about to overwrite.
extern "C" __global__ void save_rows(const SaveArgs a) {
    enter();
    const Ring ring = a.rings[blockIdx.x];
    const Row row = a.rows[blockIdx.y];
    if (row.undo == NOWHERE) return;
    const u32 *kept = (const u32 *)(row.arena + ring.at + (u64)(row.position % ring.depth) * ring.row_bytes);
    u32 *saved = (u32 *)(a.buffer + ring.before * a.capacity + (u64)row.undo * ring.row_bytes);
    for (u32 w = threadIdx.x; w < ring.row_bytes / 4; w += blockDim.x) saved[w] = kept[w];
}

// Which positions of a ring are copied, and where their copies lie.
struct RingCopy {
    u64 at;
    u32 from, count;
};

struct CopyArgs {
    const Ring *rings;
    const RingCopy *copies;
    u8 *arena;
    u8 *buffer;
    u32 restore; // 0: from the rings to the buffer; 1: back
    u32 unused;
};

extern "C" __global__ void copy_rings(const CopyArgs a) {
    enter();
    const Ring ring = a.rings[blockIdx.y];
    const RingCopy copy = a.copies[blockIdx.y];
    for (u32 i = blockIdx.x; i < copy.count; i += gridDim.x) {
        u32 *kept = (u32 *)(a.arena + ring.at + (u64)((copy.from + i) % ring.depth) * ring.row_bytes);
        u32 *held = (u32 *)(a.buffer + copy.at + (u64)i * ring.row_bytes);
        for (u32 w = threadIdx.x; w < ring.row_bytes / 4; w += blockDim.x) {
            if (a.restore)
                kept[w] = held[w];
            else
                held[w] = kept[w];
        }
    }
}
