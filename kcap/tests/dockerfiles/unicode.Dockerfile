FROM busybox
LABEL größe="ü ñ" emoji=🐳
RUN echo 日本語 > /ファイル
COPY é à /ç/
COPY --chown=ü é à
RUN  wide　space 
WORKDIR /‮gnp.exe
RUN cat <<É
é
É
