/** Tokenizers of Hugging Face folders and GGUF files behind one interface. @module */
export type { ChatOptions, Message, Tokenizer } from "./types.ts";
export { CHATML, encodeChat, encodeRendered, withTemplate } from "./chat.ts";
export { type GgufMetadata, tokenizerFromGguf } from "./gguf.ts";
export { type TokenizerFiles, tokenizerFromJson } from "./json.ts";
export { loadTokenizer } from "./read.ts";
export { knowsTools, pythonJson, writeTools } from "./tools.ts";
