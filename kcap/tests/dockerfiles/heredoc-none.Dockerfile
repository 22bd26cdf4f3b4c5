FROM busybox
RUN cat<<EOF
RUN echo "<<EOF"
RUN echo '<<EOF' \<<EOF
RUN cat <<< "here string"
RUN echo $((1<<2))
RUN echo it's <<EOF
RUN echo "${x" <<EOF
RUN ["cat", "<<EOF"]
CMD cat <<EOF
ENV A=<<EOF
RUN cat <<""
RUN cat <<
RUN cat <<-
LABEL a="<<EOF"
USER root
