"""How many line feeds stand in some bytes, and whether a line may be empty, in one pass over them, as text for LLVM. Pure.

    uint64_t feeds(const uint8_t data[], uint64_t count, uint8_t feed, uint8_t back, uint8_t *odd)

`count` is a multiple of STEP_BYTES, and at least that. What counts is `feed`; `odd` becomes 1 where one follows another, or is the first
byte, or where there is a `back` anywhere. As in `kernel`, the code refers to nothing but its arguments, so what it looks for is one.
"""

from __future__ import annotations

from typing import Final

NAME: Final = "feeds"
STEP_BYTES: Final = 32  # as long as the registers of every processor that has lanes

TEXT: Final = f"""
declare i32 @llvm.ctpop.i32(i32)
define i64 @{NAME}(ptr noalias %data, i64 %count, i8 zeroext %feed, i8 zeroext %back, ptr noalias %odd) nounwind {{
entry:
%f0 = insertelement <32 x i8> poison, i8 %feed, i64 0
%f = shufflevector <32 x i8> %f0, <32 x i8> poison, <32 x i32> zeroinitializer
%b0 = insertelement <32 x i8> poison, i8 %back, i64 0
%b = shufflevector <32 x i8> %b0, <32 x i8> poison, <32 x i32> zeroinitializer
br label %step
step:
%n = phi i64 [0, %entry], [%n1, %step]
%feeds = phi i64 [0, %entry], [%feeds1, %step]
%before = phi i32 [1, %entry], [%before1, %step]
%pairs = phi i32 [0, %entry], [%pairs1, %step]
%backs = phi <32 x i8> [zeroinitializer, %entry], [%backs1, %step]
%at = getelementptr i8, ptr %data, i64 %n
%bytes = load <32 x i8>, ptr %at, align 1
%found = icmp eq <32 x i8> %bytes, %f
%here = bitcast <32 x i1> %found to i32
%some = call i32 @llvm.ctpop.i32(i32 %here)
%more = zext i32 %some to i64
%feeds1 = add i64 %feeds, %more
%up = shl i32 %here, 1
%behind = or i32 %up, %before
%pair = and i32 %behind, %here
%pairs1 = or i32 %pairs, %pair
%before1 = lshr i32 %here, 31
%return = icmp eq <32 x i8> %bytes, %b
%returns = sext <32 x i1> %return to <32 x i8>
%backs1 = or <32 x i8> %backs, %returns
%n1 = add i64 %n, {STEP_BYTES}
%goes = icmp ult i64 %n1, %count
br i1 %goes, label %step, label %done
done:
%any = icmp ne <32 x i8> %backs1, zeroinitializer
%all = bitcast <32 x i1> %any to i32
%both = or i32 %all, %pairs1
%is = icmp ne i32 %both, 0
%byte = zext i1 %is to i8
store i8 %byte, ptr %odd, align 1
ret i64 %feeds1
}}
"""
