/*
 * subtransaction.h
 *		Something that may fail, and is undone then, while the rest goes on.
 *
 * For workers that go through what many people have set up, and are to tell of one
 * that fails without giving up on the others.
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
