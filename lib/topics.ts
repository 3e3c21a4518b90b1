/**
 * Topics: publish and subscribe, in one process or across machines.
 *
 * @module
 */
export {
  type Backplane,
  type BackplaneCall,
  type BackplaneMessage,
  type BackplaneReceiver,
  formatPosition,
  type HistoryRead,
  parsePosition,
  type Position,
} from "./topics/backplane.ts";
export type { HistoryOptions } from "./topics/memory.ts";
