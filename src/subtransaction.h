/*
 * subtransaction.h
 *		Something that may fail, and is undone then, while the rest goes on.
 */
#ifndef RETRY_SUBTRANSACTION_H
#define RETRY_SUBTRANSACTION_H

/*
 * Does it in a subtransaction.  NULL when it has ended well: it is kept then, or
 * undone as well unless "keep".  Else the error, copied into the current memory
 * context; whoever cannot say what that means throws it again (ReThrowError).
 */
extern ErrorData *retry_subtransaction(void (*work) (void *arg), void *arg, bool keep);

#endif							/* RETRY_SUBTRANSACTION_H */
