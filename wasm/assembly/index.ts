// Every kernel by its name; ../ops.ts calls them by it.
export { heapBase } from "./job";
export { add, convert, copyBytes, divide, fill, fromInts, scale } from "./elementwise";
export { glu, gluBwd } from "./glu";
export { norm, normBwd, normWeightsBwd } from "./norm";
export { colDot, colSum, rowNorm, scaleCols } from "./columns";
export { adamw, clipFactor, sumPartials, sumSquares } from "./adamw";
export { cacheWrite, embed, embedBwd, rope } from "./tokens";
export { crossEntropy } from "./loss";
export { dropout } from "./dropout";
export { matmul, matvec } from "./matmul";
export { packRows, transposeRows } from "./pack";
export { panelRows } from "./micro";
export { attention, attentionBwdKV, attentionBwdQ, attentionCached, checkSequences } from "./attention";
