#!/bin/sh
exec proxyd "$@"
