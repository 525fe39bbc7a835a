// Blocks from the file to where the kernels want them: some bytes of each block to the codes, the others to the
// scales, which lie in the tiles that `matvec/weights.cuh` tells of, or in planes of their own.

struct SplitArgs {
    const u8 *blocks;
    u8 *codes, *scales; // of the whole matrix
    u32 first, count;   // blocks
    u32 block_bytes, codes_at, codes_bytes, scales_bytes;
    u32 per_row; // blocks of a row
    u32 joined;  // blocks that make 256 columns of a row; 0: the matrix does not lie in tiles
    u32 swap;    // in odd rows of a tile chunks of codes trade places by so many bytes
    u32 flip;    // what is flipped in every byte of codes
    u32 trade;   // 1: of four bytes of codes the two in the middle trade places
    u32 unused;
};

// Where a block that belongs to a tile goes.
struct Target {
    u8 *codes, *scales;
    u32 part, swap; // which of the blocks that make the row's 256 columns it is
    __device__ __forceinline__ Target(const SplitArgs &a, u32 block) {
        u32 row = block / a.per_row, k = block - row * a.per_row, within = row % 16;
        u8 *tile = a.codes + ((u64)(row / 16) * (a.per_row / a.joined) + k / a.joined) * (16 * a.joined * (a.codes_bytes + a.scales_bytes));
        codes = tile + within * a.joined * a.codes_bytes;
        scales = tile + a.joined * (16 * a.codes_bytes + within * a.scales_bytes);
        part = k % a.joined, swap = row % 2 * a.swap;
    }
};

extern "C" __global__ void split_blocks(const SplitArgs a) {
    enter();
    u32 total = a.count * a.block_bytes;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x) {
        u32 b = i / a.block_bytes, at = i - b * a.block_bytes;
        bool code = at >= a.codes_at && at < a.codes_at + a.codes_bytes;
        at = code ? at - a.codes_at : at < a.codes_at ? at : at - a.codes_bytes;
        u64 block = a.first + b;
        u8 byte = a.blocks[i];
        if (a.joined) {
            Target to(a, (u32)block);
            if (code && a.trade && (at % 4 == 1 || at % 4 == 2)) at ^= 3;
            if (code)
                to.codes[(to.part * a.codes_bytes + at) ^ to.swap] = byte ^ (u8)a.flip;
            else
                to.scales[to.part * a.scales_bytes + at] = byte;
        } else if (code) {
            a.codes[block * a.codes_bytes + at] = byte;
        } else {
            a.scales[block * a.scales_bytes + at] = byte;
        }
    }
}

// Signs of IQ2_XXS lie in the file seven to an index, the eighth makes their number even, and the scale of
// a group in the four bits that are left. Here each weight has its sign's bit, see `iq2_sign`. The scales of the eight
// groups make a word beside the block's.
extern "C" __global__ void split_iq2(const SplitArgs a) {
    enter();
    for (u32 b = blockIdx.x * blockDim.x + threadIdx.x; b < a.count; b += gridDim.x * blockDim.x) {
        Target to(a, a.first + b);
        const u16 *from = (const u16 *)(a.blocks + b * a.block_bytes);
        uint2 *codes = (uint2 *)to.codes;
        u32 sizes = 0;
        for (u32 g = 0; g < 8; g++) {
            const u16 *group = from + 1 + 4 * g;
            u32 word = group[2] | (u32)group[3] << 16, signs = 0;
            for (u32 i = 0; i < 32; i++) {
                u32 seven = word >> (i / 8 * 7) & 127, eight = seven | (__popc(seven) & 1) << 7;
                signs |= (eight >> (i % 8) & 1) << iq2_sign(i);
            }
            codes[g] = make_uint2(group[0] | (u32)group[1] << 16, signs);
            sizes |= (word >> 28) << (4 * g);
        }
        *(uint2 *)to.scales = make_uint2(sizes, from[0]);
    }
}
