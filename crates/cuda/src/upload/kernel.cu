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

// Signs of IQ2_XXS lie in the file seven to an index, the eighth makes their number even, and the scale of
// a group in the four bits that are left. Here each weight has its sign's bit: of the pair 2k, 2k + 1 of a
// group's weights the bits k and k + 16, so that one shift brings both to the tops of two halves. The
// scales of the eight groups make a word beside the block's.
extern "C" __global__ void split_iq2(const SplitArgs a) {
    enter();
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 block = (u64)blockIdx.x * blockDim.x + threadIdx.x; block < a.count; block += stride) {
        const u16 *from = (const u16 *)(a.blocks + block * a.block_bytes);
        uint2 *codes = (uint2 *)(a.codes + block * a.codes_bytes);
        u32 sizes = 0;
        for (u32 g = 0; g < 8; g++) {
            const u16 *group = from + 1 + 4 * g;
            u32 word = group[2] | (u32)group[3] << 16, signs = 0;
            for (u32 i = 0; i < 32; i++) {
                u32 seven = word >> (i / 8 * 7) & 127, eight = seven | (__popc(seven) & 1) << 7;
                signs |= (eight >> (i % 8) & 1) << (i / 2 + i % 2 * 16);
            }
            codes[g] = make_uint2(group[0] | (u32)group[1] << 16, signs);
            sizes |= (word >> 28) << (4 * g);
        }
        *(uint2 *)(a.scales + block * 8) = make_uint2(sizes, from[0]);
    }
}
