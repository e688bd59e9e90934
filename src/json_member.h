/*
 * json_member.h
 *		Members of a jsonb object that is being built.
 *
 * pushJsonbValue() wants key and value one by one, each in a struct of its own;
 * who writes an object names a member.
 *
 * The including file includes postgres.h first.
 */
#ifndef RETRY_JSON_MEMBER_H
#define RETRY_JSON_MEMBER_H

#include "utils/jsonb.h"

/* Adds one.  Name and value are copied when the object is finished, and must live until then. */
extern void retry_push_member(JsonbParseState **state, const char *name, JsonbValue *value);

/* The same, of a string. */
extern void retry_push_string(JsonbParseState **state, const char *name, const char *string);

#endif							/* RETRY_JSON_MEMBER_H */
