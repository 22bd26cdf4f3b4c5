# escape=`
FROM mcr.microsoft.com/windows/servercore
RUN dir C:\
COPY a.txt `
     C:\b\
RUN cmd /c "a ``" `
  # c
  && b
ENV A=C:\x\ B=c` d
SHELL ["powershell", "-Command"]
