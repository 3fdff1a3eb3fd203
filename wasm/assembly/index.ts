// Every kernel by its name; ../backend.ts, ../matmul.ts and ../attention.ts call them by it.
export { heapBase } from "./job";
export { add, convert, copyBytes, divide, fill, fromInts, scale } from "./elementwise";
export { glu, gluBwd } from "./glu";
export { norm, normBwd, normWeightsBwd } from "./norm";
export { colDot, colSum, rowNorm, scaleCols } from "./columns";
export { adamw, clipFactor, sumPartials, sumSquares } from "./adamw";
export { cacheWrite, embed, embedBwd, rope } from "./tokens";
export { crossEntropy } from "./loss";
export { dropout, noise } from "./dropout";
export { adamw8, lion, sgd } from "./optimizers";
export {
  adafactorApply,
  adafactorCols,
  adafactorFactor,
  adafactorMean,
  adafactorRows,
  adafactorSum,
} from "./optimizers";
export { fewRows, matmul, matvec, panelRows } from "./matmul";
export { matmulHeld } from "./matmul_held";
export { packRows, transposeRows } from "./pack";
export { attention } from "./attention";
export { attentionBwdKeys, attentionBwdQueries, attentionBwdWhole } from "./attention_bwd_kernels";
export { attentionFew } from "./attention_few";
export { blocksOfCache, blocksOfSequences } from "./attention_blocks";
