// Blocks from the file to planes: some bytes of each block to the codes, the others to the scales.

struct SplitArgs {
    const u8 *blocks;
    u8 *codes;
    u8 *scales;
    u64 count; // of blocks
    u32 block_bytes, codes_at, codes_bytes, unused;
};

extern "C" __global__ void split_blocks(const SplitArgs a) {
    enter();
    u64 total = a.count * a.block_bytes, stride = (u64)gridDim.x * blockDim.x;
    u32 others = a.block_bytes - a.codes_bytes;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += stride) {
        u64 block = i / a.block_bytes;
        u32 at = (u32)(i % a.block_bytes);
        if (at >= a.codes_at && at < a.codes_at + a.codes_bytes)
            a.codes[block * a.codes_bytes + (at - a.codes_at)] = a.blocks[i];
        else
            a.scales[block * others + (at < a.codes_at ? at : at - a.codes_bytes)] = a.blocks[i];
    }
}
