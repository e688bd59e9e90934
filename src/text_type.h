/*
 * text_type.h
 *		What the types whose form is a text have in common on the SQL side.
 *
 * retry.backoff and retry.rate differ in what their texts mean.  How a bad text
 * is refused, and how a good one travels in binary, is the same for both.
 */
#ifndef RETRY_TEXT_TYPE_H
#define RETRY_TEXT_TYPE_H

#include "lib/stringinfo.h"
#include "compat.h"
#include "cron.h"

/* ERROR with this SQLSTATE: which part of the text is wrong, why, and what to write. */
pg_noreturn extern void retry_refuse_text(const char *type, const char *text, const RetryParseError *err,
										  int sqlstate);

/*
 * The text of a value that arrives in binary: a version byte, then the text.
 * Any client can make that, and one reader checks both.  Palloc'd.  ERROR
 * (invalid_binary_representation) for another version.
 */
extern char *retry_receive_text(StringInfo buf, int version, const char *type);

/* The same form of a value that is sent, palloc'd. */
extern bytea *retry_send_text(int version, const char *text, int len);

#endif							/* RETRY_TEXT_TYPE_H */
