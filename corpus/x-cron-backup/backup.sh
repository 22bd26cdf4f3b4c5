#!/bin/sh
date >> /var/log/backup.log
