/**
 * The event loop's turns and the timers, for those who import them from here.
 *
 * @module
 */
export { backgroundTimer, nextTurn } from "../timers.ts";
