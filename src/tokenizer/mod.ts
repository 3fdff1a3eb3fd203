/** Tokenizers of Hugging Face folders and GGUF files behind one interface. @module */
export type { Message, Tokenizer } from "./types.ts";
