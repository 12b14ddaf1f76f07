// Compiles register.mo. In an empty folder with a copy of this one's files:
//
//	npm install motoko@3.13.0 && node compile.mjs
//
// That version is the last whose modules have 32-bit memory.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";

const motoko = createRequire(process.cwd() + "/")("motoko").default;
motoko.write("register.mo", readFileSync("register.mo", "utf8"));
writeFileSync("register.wasm", motoko.wasm("register.mo", "ic").wasm);
