/*
 * quote.h
 *		Parts of a user's text in error messages.
 *
 * A message names what it refuses, but a text may be megabytes long, and it
 * is in whatever encoding the database has.
 */
#ifndef RETRY_QUOTE_H
#define RETRY_QUOTE_H

/* A palloc'd copy of "len" bytes of a text, cut after some 200 of them. */
extern char *retry_quoted(const char *text, int len);

/* The same of a text that ends with a NUL. */
extern char *retry_quoted_string(const char *text);

#endif							/* RETRY_QUOTE_H */
